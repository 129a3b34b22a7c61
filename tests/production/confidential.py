# SPDX-License-Identifier: Apache-2.0
"""Secrets and rows that can be recognized wherever they are, and all that must be nowhere."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from airflow_provider_capillary.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterable

CLIENT_KEY = f"key{secrets.token_hex(12)}"
#: What every client secret begins with.
_SECRET = f"secret{secrets.token_hex(12)}"
#: What every coupon code begins with that is uploaded or refused.
COUPON = f"COUPON{secrets.token_hex(8).upper()}"


def new_secret() -> str:
    """Return a client secret that no other sandbox has."""
    return _SECRET + secrets.token_hex(8)


def new_sandbox() -> Sandbox:
    """Return a local Capillary with a secret of its own, which is not started yet."""
    return Sandbox(client_key=CLIENT_KEY, client_secret=new_secret())


def confidential(sandboxes: Iterable[Sandbox]) -> dict[str, str]:
    """Return all that must be nowhere, by names that may be shown.

    :param sandboxes: Those whose tokens are meant.
    """
    found = {"client key": CLIENT_KEY, "client secret": _SECRET, "row": COUPON}
    for number, sandbox in enumerate(sandboxes):
        for token_number, token in enumerate(sandbox.tokens_issued):
            # A part may be logged without the others. The first is the same in all tokens.
            for part, value in zip(("claims", "signature"), token.split(".")[1:], strict=True):
                found[f"{part} of token {token_number} of sandbox {number}"] = value
    return found
