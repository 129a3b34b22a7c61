# SPDX-License-Identifier: Apache-2.0
"""A shell that runs the commands of a page as a reader would."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

STOP_SECONDS = 15.0


class Shell:
    """A bash that runs one block of commands after the other, and ends at the first that fails.

    :param folder: Where it begins, and where the output of each block is kept.
    :param env: Its environment.
    :param prelude: Commands to run first.
    """

    def __init__(self, folder: Path, env: Mapping[str, str], prelude: str) -> None:
        self._folder = folder
        self._blocks = 0
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.run(f"set -e\n{prelude}", seconds=300)

    def run(self, commands: str, *, seconds: float) -> str:
        """Run a block of commands, and return its output.

        :param commands: The commands.
        :param seconds: How long they may take.
        """
        self._blocks += 1
        output = self._folder / f"output-{self._blocks}.log"
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{{\n{commands}\n}} </dev/null >{shlex.quote(str(output))} 2>&1\necho finished\n")
        self._process.stdin.flush()
        is_ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        ended = self._process.stdout.readline() if is_ready else f"after {seconds:.0f} s nothing"
        text = output.read_text(errors="replace") if output.exists() else ""
        assert ended == "finished\n", f"{ended or 'a command failed'}:\n{commands}\n---- output\n{text[-5000:]}"
        return text

    def environment(self) -> dict[str, str]:
        """Return what the commands have exported."""
        pairs = self.run("env --null", seconds=60).split("\0")
        return dict(pair.split("=", 1) for pair in pairs if "=" in pair)

    def close(self) -> None:
        """End it, and what it started in the background."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            # Its children are of its group, and may be there when it has ended itself.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        self._process.communicate()
