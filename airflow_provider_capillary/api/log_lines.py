# SPDX-License-Identifier: Apache-2.0
"""Lines of a log. None has more than 200 characters, so that none is wrapped or cut where logs are read."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_LINE = 200


def one_line(head: str, tail: str = "") -> str:
    """Join two parts to a line that is not too long, by the end of the first one.

    :param head: The first part.
    :param tail: The second one, which is kept.
    """
    room = LONGEST_LINE - len(tail)
    if len(head) > room:
        head = f"{head[: max(0, room - 1)]}…"
    return (head + tail)[:LONGEST_LINE]


def write_lines(write: Callable[..., Any], text: str) -> None:
    """Log a text, a long one as several lines.

    :param write: Method of the log for its level.
    :param text: The text.
    """
    for line in textwrap.wrap(text, LONGEST_LINE, break_on_hyphens=False):
        write("%s", line)
