# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

# The contract is shared with tests/integration; as it is no test module itself, its assertions would stay mute.
pytest.register_assert_rewrite("tests.transfers.contract", "tests.transfers.running")
