# SPDX-License-Identifier: Apache-2.0
"""XComs as they lie in the database."""

from __future__ import annotations

import json
from typing import Any


def decoded(value: Any) -> Any:
    """Return what an XCom holds."""
    while isinstance(value, str) and value[:1] in ("[", "{", '"'):
        value = json.loads(value)
    return value
