# SPDX-License-Identifier: Apache-2.0
"""What the environment may set: all of it begins with `PRODUCTION_`."""

from __future__ import annotations

import os
import random


def _given(name: str) -> str:
    return os.environ.get(f"PRODUCTION_{name}", "")


#: How long processes are killed and jobs end, in seconds.
SECONDS = float(_given("SECONDS") or 120)
#: How many files are uploaded.
UPLOADS = int(_given("UPLOADS") or 8)
#: A run that failed is repeated with its seed, as far as chance goes.
SEED = int(_given("SEED") or random.SystemRandom().randrange(10**6))
#: The file that the figures of a run without a failure are written into; nowhere by default.
RESULTS = _given("RESULTS")
