# SPDX-License-Identifier: Apache-2.0
"""Streams a form with a file, in constant memory."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from requests_toolbelt import MultipartEncoder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capillary.api.http_messages import FileForm


@contextmanager
def encode_form(form: FileForm) -> Iterator[MultipartEncoder]:
    """Open the file of a form, and encode the form as it is read.

    :param form: The form.
    :return: A context manager of the encoder: ``read`` returns the body, ``len`` is its size in bytes.
    """
    with form.open_file() as file:
        yield MultipartEncoder({**form.fields, "file": (form.file_name, file, "text/csv")})
