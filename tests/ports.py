# SPDX-License-Identifier: Apache-2.0
"""Ports of this machine for the servers of tests."""

from __future__ import annotations

import contextlib
import random
import socket

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago, all different.

    They are below those that systems give to clients, because some time goes by until a server uses them.
    """
    ports: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(ports) < count:
            port = random.randrange(20_000, 32_000)
            probe = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind((LOOPBACK, port))
                ports.append(port)
    return ports
