# SPDX-License-Identifier: Apache-2.0
"""The tables of the pages are those of the code."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from airflow_provider_capillary import exceptions
from airflow_provider_capillary.api.jobs import UploadJob
from airflow_provider_capillary.api.upload_kinds import COUPON, REDEEM, UploadKind
from airflow_provider_capillary.get_provider_info import get_provider_info
from tests.docs.pages import code, fences_of, table_under
from tests.project import PYPROJECT, text_of


def test_every_field_of_the_connection_form_is_in_the_table_in_its_order() -> None:
    info: Any = get_provider_info()
    (connection,) = info["connection-types"]
    fields = {label: name for name, label in connection["ui-field-behaviour"]["relabeling"].items()}
    fields |= {"Port": "port"} | {field["label"]: name for name, field in connection["conn-fields"].items()}

    rows = table_under("docs/reference/connection.md", "Connection fields", "Field")

    assert [(label, code(stored)) for label, stored, *_ in rows] == list(fields.items())


def test_every_exception_is_in_the_table() -> None:
    rows = table_under("docs/reference/errors.md", "Errors", "Exception")
    assert sorted(code(name) for name, *_ in rows) == sorted(exceptions.__all__)


def test_the_table_of_status_words_is_right() -> None:
    rows = {
        meaning: cell for cell, meaning in table_under("docs/guides/waiting.md", "Which status ends it", "Status word")
    }
    for meaning, done in (("completed", (True, False)), ("failed", (False, True)), ("running", (False, False))):
        for word in re.findall(r"`(\w+)`", rows[meaning]):
            job = UploadJob(job_id=1, status=word)
            assert (job.is_completed, job.is_failed) == done, word
            assert job.has_known_status, word


def test_every_make_target_is_in_the_table() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", text_of("Makefile"), re.MULTILINE)
    documented = [code(cell) for cell, _ in table_under("CONTRIBUTING.md", "Targets", "Target")]
    assert sorted(documented) == sorted(f"make {target}" for target in targets)


def test_the_job_in_the_guide_to_waiting_has_the_fields_of_a_real_one() -> None:

    (example,) = fences_of("docs/guides/waiting.md", "json")
    job = json.loads(example.text)
    assert UploadJob.from_dict(job).to_dict() == job


@pytest.mark.parametrize(("title", "kind"), [("Redeemed coupons", REDEEM), ("Coupons", COUPON)])
def test_the_columns_of_an_upload_are_those_that_are_checked(title: str, kind: UploadKind) -> None:
    rows = {name: cells for name, *cells in table_under("docs/guides/uploads.md", "Columns", "Kind")}
    required, further = (set(re.findall(r"`([a-z]\w*)`", cell)) for cell in rows[title])
    identifying = {column for column in [*kind.customer_columns.values(), *kind.coupon_columns.values()] if column}
    assert required - {"customer_identifier", "coupon_identifier"} == {*kind.required_columns, *identifying}
    assert further == set(kind.optional_columns)


def test_the_tested_versions_are_those_of_the_matrix_and_of_the_development_environment() -> None:
    rows = table_under("docs/policy/versions.md", "Airflow versions", "Airflow")
    documented = {(airflow, python) for airflow, pythons, _ in rows for python in pythons.split(", ")}
    matrix = re.findall(r'^    Environment\("([\d.]+)", "([\d.]+)"', text_of("scripts/test_matrix.py"), re.MULTILINE)
    (developed,) = re.findall(r"^AIRFLOW_VERSION := (.+)$", text_of("Makefile"), re.MULTILINE)
    assert documented == {*matrix, (developed, PYPROJECT["project"]["requires-python"].removeprefix(">="))}
