# SPDX-License-Identifier: Apache-2.0
"""All exceptions of this provider.

::

    CapillaryError
    +-- CapillaryConfigurationError     also a ValueError
    +-- CapillaryTransportError
    +-- CapillaryResponseError
    +-- CapillaryApiError
    |   +-- CapillaryRateLimitError
    |   +-- CapillaryAuthError
    |   +-- CapillaryAccessError
    +-- CapillaryJobNotFoundError
    +-- CapillaryErrorFileError
    +-- CapillaryUploadError
    +-- CapillaryJobFailedError         also an AirflowFailException
"""

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
    CapillaryUploadError,
)


class CapillaryJobFailedError(CapillaryError, AirflowFailException):
    """The upload job failed, or completed with more errors than the sensor allows.

    Also an ``AirflowFailException``, so the task is not retried: the result of the job would be the same. With
    ``soft_fail``, the task is skipped in every mode.
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
    "CapillaryUploadError",
]
