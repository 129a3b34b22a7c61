# SPDX-License-Identifier: Apache-2.0
"""Runs the doctor, and searches each of its reports for values that it must not show."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.doctor.__main__ import main

# Fixtures of the tests of the hooks.
from tests.hooks.conftest import authority, connect, fresh_process, plain_machine, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_capillary.sandbox import Sandbox

    Examine = Callable[..., "Examined"]

__all__ = ["authority", "connect", "fresh_process", "plain_machine", "start"]

SERIES = 535512
#: Long enough to be found in a report by a search.
JOB_ID = 77_123_456


@dataclass(frozen=True)
class Examined:
    """The report about an account, as text and as JSON."""

    code: int
    text: str
    document: dict[str, Any]

    def differences(self) -> dict[str, Any]:
        """Fact -> what was seen in place of the sandbox's answer."""
        return {each["fact"]: each["seen"] for each in self.document["sandbox_differences"]}


@pytest.fixture
def examine(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, quick_retries: None
) -> Iterator[Examine]:
    """Examine a connection to a sandbox, twice: as text, and as JSON.

    ``private`` has values that no report may have, besides those of the sandbox.
    """

    def run(sandbox: Sandbox, conn_id: str, *, private: tuple[str, ...] = ()) -> Examined:
        capfd.readouterr()
        faults = list(sandbox._faults)
        code = main([conn_id, str(SERIES)])
        text, text_log = capfd.readouterr()
        sandbox._faults[:] = faults  # both reports are about the same answers
        assert main([conn_id, str(SERIES), "--json"]) == code
        document, json_log = capfd.readouterr()
        logged = f"{text_log}{json_log}{caplog.text}"
        for value in [*secrets_of(sandbox), *private]:
            assert value not in text
            assert value not in document
            assert value not in logged
        for value in (str(SERIES), conn_id, sandbox.host):
            assert value not in document
        assert sandbox.count("upload") == 0
        return Examined(code, text, json.loads(document))

    return run


def secrets_of(sandbox: Sandbox) -> set[str]:
    """Everything of a sandbox that is secret or personal, or identifies the account."""
    found = {sandbox.client_key, sandbox.client_secret, str(sandbox.org_id)}
    for token in sandbox.tokens_issued:
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        found |= {token, *token.split("."), *(str(value) for value in claims.values())}
    for job in sandbox.jobs():
        # A short id would be found in a port or a length.
        found |= {job.handle, job.uploaded_file_name, *([str(job.job_id)] if job.job_id >= JOB_ID else [])}
        found |= {cell for row in job.read_error_file().splitlines()[1:] for cell in cells_of(row)}
    return found


def cells_of(row: bytes) -> set[str]:
    text = row.decode("latin-1").replace(";", ",")
    return {cell.strip() for cell in text.split(",") if len(cell.strip()) >= 4}
