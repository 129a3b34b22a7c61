# SPDX-License-Identifier: Apache-2.0
"""A read that is interrupted, as by the time-out of a task, is never taken for the end of the file, nor skipped."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capillary._transport import error_file_stream
from airflow_provider_capillary._transport.error_file_stream import open_object
from airflow_provider_capillary.api.error_files import ObjectSource
from airflow_provider_capillary.exceptions import CapillaryErrorFileError
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.sandbox import Fault
from tests.airflow_compat import AirflowTaskTimeout
from tests.hooks.clients import CONN_ID, QUICK, SERIES, file_bytes
from tests.hooks.test_error_files import job_at
from tests.transfers.running import interrupting, interrupting_at_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType
    from typing import BinaryIO

    from tests.hooks.conftest import Connect, Start

CONTENT = file_bytes(3 << 20)
MIB = 1 << 20
INTERRUPTIONS = [AirflowTaskTimeout("too long"), KeyboardInterrupt()]


@contextmanager
def stream_of(start: Start, connect: Connect, fault: Fault | None = None) -> Iterator[BinaryIO]:
    sandbox = start()
    job = sandbox.add_job(SERIES, errors=3, error_file=CONTENT)
    connect(sandbox)
    if fault is not None:
        sandbox.inject(fault)
    with CapillaryHook(CONN_ID, http_retry=QUICK).open_error_file(job_at(job.handle)) as stream:
        yield stream


def rest_of(stream: BinaryIO) -> bytes:
    """Read to the end of the file, as who caught an interruption and goes on."""
    return b"".join(iter(lambda: stream.read(MIB), b""))


@pytest.mark.parametrize("error", INTERRUPTIONS, ids=lambda error: type(error).__name__)
def test_after_an_interruption_of_a_download_no_read_says_end_of_file(
    start: Start, connect: Connect, error: BaseException
) -> None:
    with stream_of(start, connect, Fault("drip", endpoint="download", seconds=20.0)) as stream:
        with pytest.raises(type(error)), interrupting(error, when=lambda: True):
            stream.read()

        for _ in range(2):
            with pytest.raises(CapillaryErrorFileError, match="was interrupted; open the file again"):
                stream.read(1)


def test_a_first_read_that_is_interrupted_at_any_line_loses_no_byte_without_an_error(
    start: Start, connect: Connect
) -> None:
    ends = []
    was_interrupted = True
    while was_interrupted:
        was_interrupted = False
        with stream_of(start, connect) as stream:
            read = b""
            try:
                with interrupting_at_line(len(ends) + 1, error_file_stream.__file__):
                    read = stream.read(1)
            except KeyboardInterrupt:
                was_interrupted = True
            try:
                read += rest_of(stream)
            except CapillaryErrorFileError:
                ends.append("refused")
            else:
                assert read == CONTENT
                ends.append("whole")
    assert ends.count("refused") > 5
    assert ends[-1] == "whole"


def test_after_an_interruption_of_a_read_of_an_object_nothing_is_skipped(tmp_path: Path) -> None:
    # A stream of object storage stands where it is, behind the bytes that the interrupted read had in hand.
    path = tmp_path / "theirs.csv"
    path.write_bytes(file_bytes(20 * MIB))
    fills = 0

    def trace(frame: FrameType, event: str, argument: object) -> object:
        nonlocal fills
        if frame.f_code is error_file_stream._ObjectReader._fill.__code__:
            fills += 1
            if fills == 2:
                raise AirflowTaskTimeout("too long")
        return None

    with open_object(ObjectSource(f"file://{path}", None), expects_rows=True) as stream:
        previous = sys.gettrace()
        sys.settrace(trace)
        try:
            with pytest.raises(AirflowTaskTimeout):
                stream.read()
        finally:
            sys.settrace(previous)
        assert fills == 2

        with pytest.raises(CapillaryErrorFileError, match="was interrupted; open the file again"):
            rest_of(stream)


def test_after_a_read_of_an_object_that_failed_nothing_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "theirs.csv"
    path.write_bytes(file_bytes(20 * MIB))
    with open_object(ObjectSource(f"file://{path}", None), expects_rows=True) as stream:
        stream.read(1)
        stream.raw._stream.close()  # type: ignore[attr-defined]

        for _ in range(2):
            with pytest.raises(CapillaryErrorFileError, match="cannot be read"):
                rest_of(stream)
