# SPDX-License-Identifier: Apache-2.0
"""Copies and pickles of what was used before: they begin anew.

Connections, locks and loggers cannot be copied, and settings, which hold the client secret, belong in no pickle.
"""

from __future__ import annotations

from typing import Any, ClassVar


class BeginsAnew:
    """Leaves out of copies and pickles what only use puts onto an object; its class has the values to begin with."""

    #: Names of these attributes.
    _made_by_use: ClassVar[tuple[str, ...]] = ()

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        left_out = {"_log", *self._made_by_use}
        return {name: value for name, value in state.items() if name not in left_out} if isinstance(state, dict) else {}


class OperatorBeginsAnew(BeginsAnew):
    """The same for operators, whose deep copies do not ask for a state.

    Each class has to add ``_made_by_use`` to Airflow's ``shallow_copy_attrs``.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = super().__deepcopy__(memo)  # type: ignore[misc] # that of the operator
        for name in self._made_by_use:
            copied.__dict__.pop(name, None)
        return copied
