# SPDX-License-Identifier: Apache-2.0
"""The upload methods of both hooks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary._airflow_compat import run_in_thread
from airflow_provider_capillary.api.upload_kinds import COUPON, REDEEM

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_capillary._transport.renewed_connection import RenewedAsyncConnection, RenewedConnection
    from airflow_provider_capillary.api.client import CapillaryClient
    from airflow_provider_capillary.api.flow import Flow
    from airflow_provider_capillary.api.jobs import UploadJob
    from airflow_provider_capillary.api.upload_kinds import UploadKind


def _upload_flow(
    kind: UploadKind, coupon_series_id: int | str, file: str, **arguments: Any
) -> Callable[[CapillaryClient], Flow[UploadJob]]:
    """Read and check the file, and return the flow that uploads it."""
    from airflow_provider_capillary._storage.prepared_upload import upload_of_file
    from airflow_provider_capillary.api.uploads import UploadLookup, upload_once

    upload = upload_of_file(kind, coupon_series_id, file, **arguments)
    return partial(upload_once, upload=upload, lookup=UploadLookup())


class UploadMethods:
    """The upload methods of ``CapillaryHook``."""

    if TYPE_CHECKING:

        @property
        def _connection(self) -> RenewedConnection: ...

    def upload_redeemed_coupons(
        self,
        coupon_series_id: int | str,
        file: str,
        *,
        customer_identifier: str,
        coupon_identifier: str,
        columns: Mapping[str, str | int] | None = None,
        object_storage_conn_id: str | None = None,
        file_name: str | None = None,
        details: str | None = None,
    ) -> UploadJob:
        """Upload a CSV file of redeemed coupons as one job.

        ``POST /coupon/api/v1/upload/redeemFile/{couponSeriesId}`` (docs/capillary/api.md, 4). A lost answer does not
        lead to a second job within this call; ``CapillaryRedeemUploadOperator`` promises the same over all tries of a
        task.

        :param coupon_series_id: The coupon series.
        :param file: URI of an object, or absolute path.
        :param customer_identifier: ``MOBILE``, ``EXTERNAL_ID``, ``EMAIL`` or ``USER_ID``.
        :param coupon_identifier: ``COUPON_ID`` or ``COUPON_CODE``.
        :param columns: Key of the API -> name in the header line, or index from 0. None, the default, if the header
            line has the keys of the API or their snake_case.
        :param object_storage_conn_id: Airflow connection of the object store; None, the default, for the credentials of
            the machine.
        :param file_name: Name that the file gets. If the series has a job of that name, nothing is sent, and that job
            is returned. None, the default, for the name of the file and a random token.
        :param details: Free text that Capillary keeps with the job; None, the default, for none.
        :return: The job, most likely QUEUED.
        :raises CapillaryConfigurationError: An argument cannot be used.
        :raises CapillaryUploadError: The file cannot be used, or Capillary's answer was lost.
        :raises CapillaryError: Capillary refused the file, or cannot be reached.
        """
        flow = _upload_flow(
            REDEEM,
            coupon_series_id,
            file,
            customer_identifier=customer_identifier,
            coupon_identifier=coupon_identifier,
            columns=columns,
            object_storage_conn_id=object_storage_conn_id,
            file_name=file_name,
            details=details,
        )
        return self._connection.run(flow)

    def upload_coupons(
        self,
        coupon_series_id: int | str,
        file: str,
        *,
        customer_identifier: str = "NOT_TAGGED",
        columns: Mapping[str, str | int] | None = None,
        object_storage_conn_id: str | None = None,
        file_name: str | None = None,
        details: str | None = None,
    ) -> UploadJob:
        """Upload a CSV file of coupons to a series as one job.

        ``POST /coupon/api/v1/upload/file/{couponSeriesId}`` (docs/capillary/api.md, 4). The other parameters, the
        result and the errors are those of :meth:`upload_redeemed_coupons`.

        :param customer_identifier: ``NOT_TAGGED`` (default) for coupons that belong to no customer yet; or
            ``MOBILE``, ``EXTERNAL_ID``, ``EMAIL`` or ``USER_ID``.
        """
        flow = _upload_flow(
            COUPON,
            coupon_series_id,
            file,
            customer_identifier=customer_identifier,
            coupon_identifier=None,
            columns=columns,
            object_storage_conn_id=object_storage_conn_id,
            file_name=file_name,
            details=details,
        )
        return self._connection.run(flow)


class AsyncUploadMethods:
    """The upload methods of ``CapillaryAsyncHook``. They read the file in a thread."""

    if TYPE_CHECKING:

        def _opened(self) -> RenewedAsyncConnection: ...

    async def upload_redeemed_coupons(
        self,
        coupon_series_id: int | str,
        file: str,
        *,
        customer_identifier: str,
        coupon_identifier: str,
        columns: Mapping[str, str | int] | None = None,
        object_storage_conn_id: str | None = None,
        file_name: str | None = None,
        details: str | None = None,
    ) -> UploadJob:
        """Upload a CSV file of redeemed coupons as one job; see ``CapillaryHook.upload_redeemed_coupons``."""
        prepare = partial(
            _upload_flow,
            REDEEM,
            coupon_series_id,
            file,
            customer_identifier=customer_identifier,
            coupon_identifier=coupon_identifier,
            columns=columns,
            object_storage_conn_id=object_storage_conn_id,
            file_name=file_name,
            details=details,
        )
        return await self._opened().run(await run_in_thread(prepare))

    async def upload_coupons(
        self,
        coupon_series_id: int | str,
        file: str,
        *,
        customer_identifier: str = "NOT_TAGGED",
        columns: Mapping[str, str | int] | None = None,
        object_storage_conn_id: str | None = None,
        file_name: str | None = None,
        details: str | None = None,
    ) -> UploadJob:
        """Upload a CSV file of coupons to a series as one job; see ``CapillaryHook.upload_coupons``."""
        prepare = partial(
            _upload_flow,
            COUPON,
            coupon_series_id,
            file,
            customer_identifier=customer_identifier,
            coupon_identifier=None,
            columns=columns,
            object_storage_conn_id=object_storage_conn_id,
            file_name=file_name,
            details=details,
        )
        return await self._opened().run(await run_in_thread(prepare))
