# SPDX-License-Identifier: Apache-2.0
"""Checks a file and the arguments of its upload, before anything is sent."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary._storage.locations import locate
from airflow_provider_capillary._storage.upload_source import UploadSource
from airflow_provider_capillary.api.http_messages import FileForm
from airflow_provider_capillary.api.upload_columns import upload_headers
from airflow_provider_capillary.api.uploads import Upload, form_fields, part_names
from airflow_provider_capillary.api.values import BEYOND_ANY_NUMBER, parse_id, read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow_provider_capillary._storage.upload_source import PartReader
    from airflow_provider_capillary.api.csv_files import CsvFile, FilePart
    from airflow_provider_capillary.api.upload_kinds import UploadKind


@dataclass(frozen=True)
class PreparedUpload:
    """A file that was read and checked.

    :param kind: The kind of upload.
    :param coupon_series_id: The coupon series.
    :param source: The file.
    :param file: Its header, rows and parts.
    :param fields: The parts of the form beside the file.
    """

    kind: UploadKind
    coupon_series_id: int
    source: UploadSource
    file: CsvFile
    fields: Mapping[str, str] = field(hash=False)

    @property
    def stem(self) -> str:
        """The name of the file without its extension."""
        return PurePosixPath(self.source.location.uri).name.partition(".")[0]

    def upload_of(self, part: FilePart, file_name: str, *, before_send: Callable[[], None] | None = None) -> Upload:
        """Return the upload of one part.

        :param part: The part.
        :param file_name: Name that the file gets.
        :param before_send: Called directly before each request; an error of it prevents the request.
        """

        @contextmanager
        def open_file() -> Iterator[PartReader]:
            with self.source.open_part(self.file, part) as reader:
                if before_send is not None:
                    before_send()
                yield reader

        form = FileForm(self.fields, file_name, self.file.size_of(part), open_file)
        return Upload(self.kind, self.coupon_series_id, form)


def prepare_upload(
    kind: UploadKind,
    coupon_series_id: int | str,
    source: str,
    *,
    customer_identifier: str,
    coupon_identifier: str | None,
    columns: Mapping[str, str | int] | None,
    object_storage_conn_id: str | None,
    max_rows_per_job: Any,
    details: str | None = None,
    name: str = "source",
) -> PreparedUpload:
    """Read a file once and check it.

    :param kind: The kind of upload.
    :param coupon_series_id: The coupon series.
    :param source: URI or absolute path of the file.
    :param customer_identifier: Kind of the customers' ids.
    :param coupon_identifier: Kind of the coupons' ids; None for an upload of coupons.
    :param columns: Key of a column -> name in the header line, or index from 0; None if the header line has the keys.
    :param object_storage_conn_id: Airflow connection of the object store; None for the credentials of the machine.
    :param max_rows_per_job: The most rows of one job.
    :param details: Free text that Capillary keeps with the job.
    :param name: The argument that names the file, for messages.
    :raises CapillaryConfigurationError: An argument cannot be used.
    :raises CapillaryUploadError: The file cannot be used.
    """
    series_id = parse_id("coupon_series_id", coupon_series_id)
    max_rows = parse_id("max_rows_per_job", max_rows_per_job)
    location = locate(source, conn_id=object_storage_conn_id, name=name)
    opened = UploadSource(location, name)
    file = opened.scan(max_rows_per_part=max_rows)
    headers = upload_headers(
        file, kind, customer_identifier=customer_identifier, coupon_identifier=coupon_identifier, columns=columns
    )
    fields = form_fields(
        headers, customer_identifier=customer_identifier, coupon_identifier=coupon_identifier, details=details
    )
    return PreparedUpload(kind, series_id, opened, file, fields)


def upload_of_file(
    kind: UploadKind,
    coupon_series_id: int | str,
    file: str,
    *,
    customer_identifier: str,
    coupon_identifier: str | None,
    columns: Mapping[str, str | int] | None,
    object_storage_conn_id: str | None,
    file_name: str | None,
    details: str | None,
) -> Upload:
    """Read a file once, check it, and return its upload as one job.

    :param file: URI or absolute path of the file.
    :param file_name: Name that the file gets; None for the name of the file and a random token.
    :raises CapillaryError: As :func:`prepare_upload`, which describes the other parameters.
    """
    prepared = prepare_upload(
        kind,
        coupon_series_id,
        file,
        customer_identifier=customer_identifier,
        coupon_identifier=coupon_identifier,
        columns=columns,
        object_storage_conn_id=object_storage_conn_id,
        max_rows_per_job=BEYOND_ANY_NUMBER - 1,
        details=details,
        name="file",
    )
    if file_name is None:
        (file_name,) = part_names(prepared.stem, [uuid.uuid4().hex[:24]])
    (part,) = prepared.file.parts
    return prepared.upload_of(part, read_text("file_name", file_name))
