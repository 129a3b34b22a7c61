# SPDX-License-Identifier: Apache-2.0
"""Runs a function of a test in a process of its own, to be measured or killed.

The process is forked from a server that has imported Airflow and the clients of S3, so that it starts at once. All that
Airflow makes of the environment happens in the process itself.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import airflow_provider_capillary.hooks.capillary  # noqa: F401 - imported in the server, once for all children

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

_context = multiprocessing.get_context("forkserver")
# Without the clients each child for S3 imports them again, which takes more than a second. The server ignores a name
# that is not installed.
_context.set_forkserver_preload([__name__, "s3fs", "boto3.session", "airflow.providers.amazon.aws.hooks.s3"])


def peak_of_memory() -> int:
    """Return the most bytes this process ever held; `ru_maxrss` would also count what the parent held at the fork."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def _main(results: Connection, environment: dict[str, str], function: Callable[..., Any], arguments: Any) -> None:
    os.environ.clear()
    os.environ.update(environment)
    try:
        results.send(function(**arguments))
    except BaseException:
        results.send(traceback.format_exc())
        raise


class ChildProcess:
    """A running call of a function.

    :param function: A function of a module, with a result that can be pickled and is no text.
    :param arguments: Its arguments.
    """

    def __init__(self, function: Callable[..., Any], **arguments: Any) -> None:
        self._results, results = _context.Pipe(duplex=False)
        self._process = _context.Process(target=_main, args=(results, dict(os.environ), function, arguments))
        self._process.start()
        # The process has its own; where it ends without a result, reading is to end too.
        results.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.join()
        self._results.close()

    def kill(self) -> None:
        """End it at once, as a machine does that goes down."""
        self._process.kill()

    def freeze(self) -> None:
        """Stop it without ending it, as a paused machine does."""
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self._pid, signal.SIGCONT)

    @property
    def _pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return not self._process.is_alive()

    def result(self, *, seconds: float = 120.0) -> Any:
        """Wait for the end and return the result.

        :param seconds: How long to wait.
        """
        assert self._results.poll(seconds), "it does not come to an end"
        result = self._results.recv()
        assert not isinstance(result, str), result
        return result
