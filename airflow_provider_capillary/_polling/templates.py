# SPDX-License-Identifier: Apache-2.0
"""Templated arguments of a task that starts in the triggerer: what can be known of them before they are rendered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary._airflow_compat import XComArg
from airflow_provider_capillary.api.errors import CapillaryConfigurationError
from airflow_provider_capillary.api.values import as_number

if TYPE_CHECKING:
    from jinja2 import nodes

_PULL = "xcom_pull"


def stored_argument(name: str, value: Any) -> Any:
    """Return what the scheduler stores of an argument: JSON, which the triggerer renders.

    :param name: Name of the argument.
    :param value: Its value.
    :raises CapillaryConfigurationError: The triggerer cannot render it.
    """
    if (number := as_number(value)) is not None and not isinstance(value, str):
        return number
    if isinstance(value, XComArg):
        if not hasattr(value, "operator"):
            raise CapillaryConfigurationError(
                f"{name} is put together from XComs ({type(value).__name__}), which the triggerer cannot do; "
                "leave out start_from_trigger, or give the output of one task"
            )
        output: Any = value
        return f"{{{{ ti.xcom_pull(task_ids={output.operator.task_id!r}, key={output.key!r}, map_indexes=-1) }}}}"
    if pulls_without_map_indexes(value):
        # Otherwise Airflow 3.3.2 asks its triggerer for a list of XComs, gets no answer, and waits for ever.
        raise CapillaryConfigurationError(
            f"{name} pulls an XCom in a way that the triggerer never answers; write "
            "ti.xcom_pull('the task', map_indexes=-1) wherever it is called, or leave out start_from_trigger"
        )
    return value


def pulls_without_map_indexes(value: Any) -> bool:
    """Whether a template, or one in a list or mapping, uses ``xcom_pull`` other than in a call with ``map_indexes``.

    :param value: A templated argument. What is no template, or is malformed, is left to Airflow.
    """
    if isinstance(value, str):
        return _PULL in value and _pulls(value)
    if isinstance(value, Mapping):
        return any(map(pulls_without_map_indexes, value.values()))
    return isinstance(value, list | tuple | set) and any(map(pulls_without_map_indexes, value))


def _pulls(template: str) -> bool:
    # Here, because a DAG file that needs none of this should not pay for the import.
    from jinja2 import Environment, TemplateSyntaxError, nodes

    try:
        # With the one extension that Airflow switches on.
        tree = Environment(extensions=["jinja2.ext.do"]).parse(template)  # noqa: S701 - nothing is rendered
    except TemplateSyntaxError:
        return False
    good = {
        id(call.node) for call in tree.find_all(nodes.Call) if any(given.key == "map_indexes" for given in call.kwargs)
    }
    references = tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Filter, nodes.Name))
    return any(_names_pull(reference) and id(reference) not in good for reference in references)


def _names_pull(node: nodes.Expr) -> bool:
    """Whether an expression is ``xcom_pull``, in any of the ways in which Jinja gets an attribute."""
    from jinja2 import nodes

    if isinstance(node, nodes.Getattr):
        return node.attr == _PULL
    if isinstance(node, nodes.Name):
        return node.name == _PULL
    named = node.arg if isinstance(node, nodes.Getitem) else None
    if isinstance(node, nodes.Filter) and node.name == "attr" and node.args:
        named = node.args[0]
    return isinstance(named, nodes.Const) and named.value == _PULL
