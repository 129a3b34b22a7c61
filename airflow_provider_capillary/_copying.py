# SPDX-License-Identifier: Apache-2.0
"""Copies and pickles of hooks, operators and triggers: they start like new objects.

Connections, locks and loggers cannot be copied, and settings must not be pickled because they hold the client secret.
"""

from __future__ import annotations

from typing import Any, ClassVar


class ResetOnCopy:
    """Omits attributes that are set only by use from copies and pickles. The class has their initial values."""

    #: Names of these attributes.
    _made_by_use: ClassVar[tuple[str, ...]] = ()

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        omitted = {"_log", *self._made_by_use}
        return {name: value for name, value in state.items() if name not in omitted} if isinstance(state, dict) else {}


class ResetOperatorOnCopy(ResetOnCopy):
    """Does the same for operators, whose deep copies do not use ``__getstate__``.

    Each class must add ``_made_by_use`` to Airflow's ``shallow_copy_attrs``.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = super().__deepcopy__(memo)  # type: ignore[misc] # defined by the operator that this is mixed into
        for name in self._made_by_use:
            copied.__dict__.pop(name, None)
        return copied
