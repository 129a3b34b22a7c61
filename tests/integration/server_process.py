# SPDX-License-Identifier: Apache-2.0
"""What the servers of the tests have in common: a process and a folder that go away with the context."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

import pytest

from tests.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 2.0


class NotReadyError(Exception):
    """The server does not serve yet."""


class NotInstalledError(Exception):
    """The server is not installed here; the message names what to install."""


class ServerProcess(ABC):
    """A running server, stopped and forgotten on leaving the context."""

    #: Begins the name of its folder, and what errors say of it.
    name: ClassVar[str]
    #: What asks it to end.
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    #: The user it runs as; None: whoever runs the tests.
    user: int | None = None

    def __init__(self) -> None:
        self.endpoint_url = ""
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @abstractmethod
    def _command(self, folder: Path) -> list[str]:
        """Prepare the folder and return what starts the server."""

    @abstractmethod
    def _try_out(self) -> None:
        """Raise NotReadyError until it serves."""

    def _start(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            self._launch()
            try:
                self._wait_until_it_serves(deadline)
                return
            except ChildProcessError:
                # Another process may have taken a port in the meantime: once more, with others.
                if time.monotonic() > deadline - START_TIMEOUT_SECONDS / 2:
                    raise
                self.stop()

    def _launch(self) -> None:
        # Not pytest's own temporary folder: its path may be too long for a Unix socket.
        self._folder = folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        command = self._command(folder)
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                # Some would read a configuration from the home of whoever runs the tests.
                env={
                    "HOME": str(folder),
                    "PATH": os.environ.get("PATH", ""),
                    "PYTHONPATH": str(ROOT),
                    "TMPDIR": str(folder),
                },
                # A group of its own: Ctrl-C reaches pytest alone, which then stops the server here.
                start_new_session=True,
                user=self.user,
            )

    def _wait_until_it_serves(self, deadline: float) -> None:
        assert self._process is not None
        error: Exception | None = None
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ChildProcessError(f"{self.name} ended with {self._process.returncode}:\n{self._log()}")
            try:
                self._try_out()
            except NotReadyError as failure:
                error = failure
                time.sleep(0.1)
            else:
                return
        raise TimeoutError(f"{self.name} does not serve: {error}\n{self._log()}")

    def log(self) -> bytes:
        """Return all that it wrote to stdout and stderr."""
        assert self._folder is not None
        return (self._folder / "log").read_bytes()

    def _log(self) -> str:
        return self.log().decode(errors="replace")[-3000:]

    def stop(self) -> None:
        """End the server with all its children and remove its data; once more does nothing."""
        process, self._process = self._process, None
        if process is not None:
            for number, patience in ((self.stop_signal, STOP_TIMEOUT_SECONDS), (signal.SIGKILL, None)):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(patience)
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


Server = TypeVar("Server", bound=ServerProcess)


def started(server: Server) -> Iterator[Server]:
    """Run a server for tests, or skip them with the reason if it is not installed."""
    try:
        server.__enter__()
    except NotInstalledError as missing:
        pytest.skip(str(missing))
    try:
        yield server
    finally:
        server.stop()
