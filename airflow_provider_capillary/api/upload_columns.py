# SPDX-License-Identifier: Apache-2.0
"""Map the columns of a file to the form part ``uploadHeaders`` of an upload.

Source: docs/capillary/api.md, 4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.errors import CapillaryConfigurationError, CapillaryUploadError
from airflow_provider_capillary.api.values import as_whole_number, short_repr, validate_choice

if TYPE_CHECKING:
    from airflow_provider_capillary.api.csv_files import CsvFile
    from airflow_provider_capillary.api.upload_kinds import UploadKind

_CAPITAL = re.compile("[A-Z]")
_MOST_NAMES_SHOWN = 20
#: Names of the API that prove a first line to be a header. One alone may be a value, such as ``mobile``.
_LEAST_NAMES_FOUND = 2


def upload_headers(
    file: CsvFile,
    kind: UploadKind,
    *,
    customer_identifier: str,
    coupon_identifier: str | None,
    columns: Mapping[str, str | int] | None,
) -> dict[str, int]:
    """Return the form part ``uploadHeaders``: API key -> index of the column from 0.

    API keys are read in the API's spelling or in snake_case, in any case of letters: ``redeemedDateInMillis``,
    ``redeemed_date_in_millis``.

    :param file: The scanned file.
    :param kind: The kind of upload.
    :param customer_identifier: Value of the form part ``customerIdentifier``.
    :param coupon_identifier: Value of the form part ``couponIdentifier``; None if the kind has none.
    :param columns: API key -> name in the header line, or index from 0. None: the header line has API keys. Then
        identifiers other than the chosen ones are left out, because Capillary would prefer some of them; so is each
        column that Capillary does not read.
    :raises CapillaryConfigurationError: An argument cannot be used.
    :raises CapillaryUploadError: The header line lacks a required column, or has one twice.
    """
    required = _required_keys(kind, customer_identifier, coupon_identifier)
    if columns is None:
        return _from_header_line(file.columns, kind, required)
    return _from_mapping(file.columns, kind, required, columns)


def _required_keys(kind: UploadKind, customer_identifier: str, coupon_identifier: str | None) -> tuple[str, ...]:
    validate_choice("customer_identifier", customer_identifier, tuple(kind.customer_columns))
    keys = [*kind.required_columns]
    if customer_key := kind.customer_columns[customer_identifier]:
        keys.append(customer_key)
    if kind.coupon_columns:
        validate_choice("coupon_identifier", coupon_identifier, tuple(kind.coupon_columns))
        keys.append(kind.coupon_columns[str(coupon_identifier)])
    elif coupon_identifier is not None:
        raise CapillaryConfigurationError(
            f"coupon_identifier is not for a {kind.title}, but is {short_repr(coupon_identifier)}; leave it out"
        )
    return tuple(dict.fromkeys(keys))


def _from_header_line(names: tuple[str, ...], kind: UploadKind, required: tuple[str, ...]) -> dict[str, int]:
    spellings = _spellings(kind)
    found: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        key = spellings.get(name.lower())
        if key is not None:
            found.setdefault(key, []).append(index)
    headers = {}
    for key in (*required, *(key for key in kind.optional_columns if key not in required)):
        indexes = found.get(key, [])
        if len(indexes) > 1:
            raise CapillaryUploadError(
                f"the header line has {key} {len(indexes)} times, as columns "
                f"{', '.join(str(index + 1) for index in indexes)}; rename all but one, or pass the indexes from 0 of "
                f"all columns, such as columns={{{key!r}: {indexes[0]}, ...}}"
            )
        if indexes:
            headers[key] = indexes[0]
    missing = [key for key in required if key not in headers]
    if missing:
        example = ", ".join(f"{key!r}: <name or index from 0>" for key in missing)
        raise CapillaryUploadError(
            f"the header line lacks {', '.join(missing)}; {_describe(names, kind)}; rename its columns, or pass the "
            f"column of each key: columns={{{example}{'' if missing == [*required] else ', ...'}}}"
        )
    return headers


def _from_mapping(
    names: tuple[str, ...], kind: UploadKind, required: tuple[str, ...], columns: Mapping[Any, Any]
) -> dict[str, int]:
    if not isinstance(columns, Mapping):
        raise CapillaryConfigurationError(
            "columns must be a mapping of API keys to names in the header line or indexes from 0, but is "
            f"of the type {type(columns).__name__}; if it comes from a template, set render_template_as_native_obj"
        )
    spellings = _spellings(kind)
    headers: dict[str, int] = {}
    for given, column in columns.items():
        key = spellings.get(given.strip().lower()) if isinstance(given, str) else None
        if key is None:
            raise CapillaryConfigurationError(
                f"columns has the key {short_repr(given)}, but a {kind.title} has the keys "
                f"{', '.join(dict.fromkeys(spellings.values()))}"
            )
        if key in headers:
            raise CapillaryConfigurationError(
                f"columns has the key {key} twice, in two spellings; leave one of them out"
            )
        index = _index_of(key, column, names, kind)
        for other, taken in headers.items():
            if taken == index:
                raise CapillaryConfigurationError(
                    f"columns has the index {index} for both {other} and {key}; each needs a column of its own"
                )
        headers[key] = index
    missing = [key for key in required if key not in headers]
    if missing:
        raise CapillaryConfigurationError(
            f"columns lacks {', '.join(missing)}; add the name or index from 0 of each, such as "
            f"columns={{{missing[0]!r}: 0, ...}}"
        )
    return headers


def _index_of(key: str, column: Any, names: tuple[str, ...], kind: UploadKind) -> int:
    """Return the index that a user gave, or that of the name that a user gave."""
    if isinstance(column, str) and column.strip():
        count = names.count(column.strip())
        if count == 1:
            return names.index(column.strip())
        if count:
            raise CapillaryConfigurationError(
                f"columns: {key} is {short_repr(column)}, which the header line has {count} times; pass its index "
                "from 0"
            )
        hint = "; an index must be a number, not text" if as_whole_number(column) is not None else ""
        raise CapillaryConfigurationError(
            f"columns: {key} is {short_repr(column)}, which the header line does not have{hint}; "
            f"{_describe(names, kind)}"
        )
    # Floats are refused, even whole ones: an index that was calculated may be off by one.
    index = as_whole_number(column) if hasattr(column, "__index__") else None
    if index is None:
        raise CapillaryConfigurationError(
            f"columns: {key} must be a name in the header line or an index from 0, but is {short_repr(column)}"
        )
    if not 0 <= index < len(names):
        raise CapillaryConfigurationError(
            f"columns: {key} is {index}, but the header line has {len(names)} columns; indexes begin at 0, so the last "
            f"one is {len(names) - 1}"
        )
    return index


def _spellings(kind: UploadKind) -> dict[str, str]:
    """Return API key by each spelling of it, in lower case."""
    keys = [*kind.required_columns, *filter(None, kind.customer_columns.values()), *kind.coupon_columns.values()]
    keys += kind.optional_columns
    return {
        spelling: key
        for key in keys
        for spelling in (key.lower(), _CAPITAL.sub(lambda capital: f"_{capital.group()}", key).lower())
    }


def _describe(names: tuple[str, ...], kind: UploadKind) -> str:
    """Return what the header line has, for a message.

    A file without a header line begins with a row, whose values must not be shown. So names are shown only if
    some of them are the API's.
    """
    spellings = _spellings(kind)
    if len({spellings.get(name.lower()) for name in names} - {None}) < _LEAST_NAMES_FOUND:
        return f"it has {len(names)} column{'s' * (len(names) != 1)}; check that the first line is a header line"
    shown = ", ".join(short_repr(name) for name in names[:_MOST_NAMES_SHOWN])
    more = len(names) - _MOST_NAMES_SHOWN
    return f"it has {shown}" + (f" and {more} more" if more > 0 else "")
