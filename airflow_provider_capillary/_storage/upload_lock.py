# SPDX-License-Identifier: Apache-2.0
"""Lets one process of a machine upload a file at a time.

Airflow starts another try of a task whose worker does not respond any more, while the first may still run.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_capillary.api.errors import CapillaryUploadError

if TYPE_CHECKING:
    from collections.abc import Iterator

_INTERVAL_SECONDS = 0.2


@contextmanager
def only_here(token: str, *, wait_seconds: float) -> Iterator[bool]:
    """Hold the lock of an upload. The kernel releases it when the process ends, however it ends.

    :param token: Identifies the upload; letters and digits.
    :param wait_seconds: How long to wait for another process that holds it.
    :return: A context manager of whether another process held it before.
    :raises CapillaryUploadError: Another process still holds it.
    """
    folder = Path(tempfile.gettempdir()) / f"airflow-provider-capillary-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{token}.lock"
    waited = False
    end = time.monotonic() + wait_seconds
    while (descriptor := _acquire(path)) is None:
        waited = True
        if time.monotonic() >= end:
            raise CapillaryUploadError(
                "another process on this machine uploads the same file for the same task; the next try of the task "
                "finds the job that it makes",
                is_transient=True,
            )
        time.sleep(_INTERVAL_SECONDS)
    try:
        yield waited
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path) -> int | None:
    """Return the descriptor of the locked file; None while another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who held it has removed it: it is then a file that nobody else finds.
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None
