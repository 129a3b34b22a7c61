# SPDX-License-Identifier: Apache-2.0
"""Every error that a user of this provider can meet."""

from __future__ import annotations

from airflow_provider_capillary._airflow_compat import AirflowFailException
from airflow_provider_capillary.api.errors import (
    CapillaryAccessError,
    CapillaryApiError,
    CapillaryAuthError,
    CapillaryConfigurationError,
    CapillaryError,
    CapillaryErrorFileError,
    CapillaryJobNotFoundError,
    CapillaryRateLimitError,
    CapillaryResponseError,
    CapillaryTransportError,
)


class CapillaryJobFailedError(CapillaryError, AirflowFailException):
    """The upload job failed, or completed with more errors than the sensor allows.

    Also an ``AirflowFailException``: the task is not retried, because the job would not end otherwise the next time,
    and ``soft_fail`` skips it in every mode.
    """


__all__ = [
    "CapillaryAccessError",
    "CapillaryApiError",
    "CapillaryAuthError",
    "CapillaryConfigurationError",
    "CapillaryError",
    "CapillaryErrorFileError",
    "CapillaryJobFailedError",
    "CapillaryJobNotFoundError",
    "CapillaryRateLimitError",
    "CapillaryResponseError",
    "CapillaryTransportError",
]
