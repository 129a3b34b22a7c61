# SPDX-License-Identifier: Apache-2.0
"""The reference pages show everything that is public, and its docstrings agree with the code."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from airflow_provider_capillary import exceptions
from airflow_provider_capillary.api.jobs import UploadJob
from airflow_provider_capillary.api.retry import HttpRetry
from airflow_provider_capillary.assets.capillary import capillary_coupon_uploads, capillary_redeem_uploads
from airflow_provider_capillary.hooks.capillary import CapillaryAsyncHook, CapillaryHook
from airflow_provider_capillary.operators.capillary import CapillaryCouponUploadOperator, CapillaryRedeemUploadOperator
from airflow_provider_capillary.sandbox import Fault, Sandbox
from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor
from airflow_provider_capillary.transfers.capillary_to_object_storage import CapillaryErrorFileToObjectStorageOperator
from airflow_provider_capillary.triggers.capillary import (
    CapillaryCouponUploadEventTrigger,
    CapillaryRedeemUploadEventTrigger,
)
from tests.docs.pages import PAGES, fences_of
from tests.project import text_of

PACKAGE = "airflow_provider_capillary"
REFERENCE = "".join(text_of(page) for page in PAGES if page.startswith("docs/reference/"))
#: Paths that a reference page shows.
SHOWN = set(re.findall(r"^::: (\S+)$", REFERENCE, re.MULTILINE))
STABLE = [
    (module, name)
    for module, names in re.findall(
        rf"^\| `({PACKAGE}[\w.]*)` \| (.+) \|$", text_of("docs/policy/stability.md"), re.MULTILINE
    )
    for name in re.findall(r"`(\w+)`", names)
    if name != "__version__"
]
#: Classes for tasks, whose docstrings mark the templated parameters.
OPERATORS = [
    CapillaryRedeemUploadOperator,
    CapillaryRedeemUploadSensor,
    CapillaryErrorFileToObjectStorageOperator,
]
DESCRIBED = [
    *OPERATORS,
    CapillaryRedeemUploadEventTrigger,
    CapillaryHook,
    Fault,
    HttpRetry,
    Sandbox,
    UploadJob,
    capillary_redeem_uploads,
    capillary_coupon_uploads,
]
HOOK_METHODS = [
    (hook, name, method)
    for hook in (CapillaryHook, CapillaryAsyncHook)
    for name, method in inspect.getmembers(hook, inspect.isfunction)
    if not name.startswith("_") and method.__module__.startswith(f"{PACKAGE}.")
]


def parameters_of(described: Any) -> dict[str, Any]:
    """Return the parameters with their defaults: of a function, or of a class without those of Airflow's base."""
    # A class may take some parameters itself, and pass the others on to its base.
    classes = reversed(described.__mro__) if inspect.isclass(described) else ()
    ours = [cls for cls in classes if cls.__module__.startswith(PACKAGE) and "__init__" in vars(cls)]
    return {
        name: parameter.default
        for function in ours or [described]
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in ("self", "_") and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }


def described_in(docstring: str | None) -> dict[str, str]:
    """Return the parameters that a docstring describes, with the text of each."""
    found = re.findall(r"^ *:param (\w+): (.+(?:\n +[^:\s].*)*)", inspect.cleandoc(docstring or ""), re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found if name != "kwargs"}


@pytest.mark.parametrize(("module", "name"), STABLE)
def test_every_stable_name_is_shown(module: str, name: str) -> None:
    as_member = module in SHOWN and (module == f"{PACKAGE}.exceptions" or name in REFERENCE)
    assert f"{module}.{name}" in SHOWN or as_member


@pytest.mark.parametrize("path", sorted(SHOWN))
def test_a_reference_shows_stable_names_only(path: str) -> None:
    module, _, name = path.rpartition(".")
    assert (module, name) in STABLE or path in {module for module, _ in STABLE}


@pytest.mark.parametrize("described", DESCRIBED, ids=lambda described: described.__name__)
def test_the_docstring_describes_every_parameter_and_no_other(described: Any) -> None:
    assert set(described_in(described.__doc__)) == set(parameters_of(described))


@pytest.mark.parametrize("cls", OPERATORS)
def test_the_docstring_marks_the_parameters_that_are_templated(cls: Any) -> None:
    described = described_in(cls.__doc__)
    assert {name for name, text in described.items() if text.endswith("(templated)")} == set(cls.template_fields)


def test_the_coupon_operator_describes_no_parameter_that_it_lacks() -> None:
    assert set(described_in(CapillaryCouponUploadOperator.__doc__)) <= set(parameters_of(CapillaryCouponUploadOperator))


def test_the_triggers_of_the_assets_have_the_parameters_of_these() -> None:
    asset = parameters_of(capillary_redeem_uploads)
    assert asset == parameters_of(capillary_coupon_uploads)
    del asset["name"]
    assert asset == parameters_of(CapillaryRedeemUploadEventTrigger) == parameters_of(CapillaryCouponUploadEventTrigger)


@pytest.mark.parametrize(("hook", "name", "method"), HOOK_METHODS)
def test_every_public_method_of_a_hook_has_a_docstring(hook: type, name: str, method: Any) -> None:
    assert inspect.getdoc(method)
    assert set(described_in(method.__doc__)) <= set(parameters_of(method))


def tree_of(cls: type, depth: int = 0) -> list[tuple[int, str]]:
    found = [(depth, cls.__name__)]
    for name in exceptions.__all__:
        child = getattr(exceptions, name)
        if cls in child.__bases__:
            found += tree_of(child, depth + 1)
    return found


@pytest.mark.parametrize("place", ["docstring", "page"])
def test_the_tree_of_errors_has_every_class_below_its_base(place: str) -> None:
    (fence,) = fences_of("docs/reference/errors.md", "text")
    text = fence.text if place == "page" else inspect.cleandoc(str(exceptions.__doc__)).partition("::\n")[2]
    lines = re.findall(r"^ *((?:\|   |    )*(?:\+-- )?)(Capillary\w+)", inspect.cleandoc(text), re.MULTILINE)
    drawn = [(len(indent) // 4, name) for indent, name in lines]
    assert sorted(drawn) == sorted(tree_of(exceptions.CapillaryError))
    # Each stands below its base.
    above: list[str] = []
    for depth, name in drawn:
        above[depth:] = [name]
        assert depth == 0 or getattr(exceptions, above[depth - 1]) in getattr(exceptions, name).__bases__
