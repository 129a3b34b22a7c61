# SPDX-License-Identifier: Apache-2.0
"""Arguments and events of triggers as version 0.1.0 stored them in Airflow's database, in the names of this version.

Tasks that wait and watchers that run during an upgrade go on with them. DAG files need the new names.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from airflow_provider_capillary.api.errors import CapillaryConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    P = ParamSpec("P")

_ARGUMENTS = {"deadline": "end_time", "ends_after": "execution_deadline", "backfill": "include_existing"}
_STATUSES = {"completed": "success", "job_failed": "failed", "too_many_errors": "error_limit_exceeded"}
_ERRORS = {"CapillarySettingsError": "CapillaryConfigurationError"}


def takes_stored_arguments(init: Callable[P, None]) -> Callable[P, None]:
    """Let the constructor of a trigger take what version 0.1.0 stored, too. Its signature stays as it is.

    :param init: The constructor.
    """

    @wraps(init)
    def takes_both(*args: P.args, **kwargs: P.kwargs) -> None:
        if _ARGUMENTS.keys().isdisjoint(kwargs):
            init(*args, **kwargs)
            return
        try:
            init(*args, **{_ARGUMENTS.get(name, name): value for name, value in kwargs.items()})  # type: ignore[arg-type] # the names are those of init
        except CapillaryConfigurationError as error:
            # The one class of error by which Airflow fails the task. Any other ends the whole triggerer.
            raise TypeError(
                f"arguments that version 0.1.0 stored cannot be used; correct the DAG file, or clear the task: {error}"
            ) from None

    return takes_both


def current_event(event: Any) -> Any:
    """Return the event of a wait in the form of this version.

    :param event: An event of this version or of 0.1.0; anything else is returned as it is.
    """
    if not isinstance(event, Mapping) or "status" in event or "kind" not in event:
        return event
    status, error = event["kind"], event.get("error")
    if isinstance(error, Mapping):
        error = {**error, "error": _ERRORS.get(str(error.get("error")), error.get("error"))}
    return {**event, "status": _STATUSES.get(str(status), status), "error": error}
