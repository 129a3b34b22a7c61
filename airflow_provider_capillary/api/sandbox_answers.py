# SPDX-License-Identifier: Apache-2.0
"""The facts of a report about the sandbox, to compare those of a real account with.

The sandbox is this project's model of Capillary: each difference is a place where the model is wrong, or where an
account differs from the samples. A test examines the real sandbox and holds this table to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Section and fact -> the values that fit the sandbox.
_SANDBOX: Mapping[tuple[str, str], tuple[Any, ...]] = {
    ("token", "http_status"): (200,),
    ("token", "envelope"): ("v3",),
    ("token", "lifetime_from"): ("ttlSeconds",),
    ("token", "claims"): (["exp", "iat", "jti", "org"],),
    ("token", "warnings"): (0,),
    ("token", "rate_limit_headers"): ([],),
    ("token", "request_id_headers"): (["x-cap-request-id"],),
    ("status", "http_status"): (200,),
    ("status", "envelope"): ("coupon service",),
    ("status", "unknown_fields"): ([],),
    ("status", "missing_fields"): ([],),
    ("status", "fields_of_other_types"): ([],),
    ("status", "unknown_status_words"): ([],),
    ("status", "dates_are"): (["text of 13 digits"], []),
    ("status", "finished_jobs_not_at_a_midnight"): (0,),
    ("status", "rate_limit_headers"): ([],),
    ("status", "request_id_headers"): (["x-cap-request-id"],),
    ("error_file", "way"): ("download",),
    ("error_file", "http_status"): (200,),
    ("error_file", "media_type"): ("application/octet-stream",),
    ("error_file", "length_from"): ("content-length",),
    ("error_file", "content_encoding"): ("none",),
    ("error_file", "compression"): (None,),
    ("error_file", "encoding"): ("ascii", "utf-8"),
    ("error_file", "has_byte_order_mark"): (False,),
    ("error_file", "line_ends"): ("LF",),
    ("error_file", "delimiter"): ("comma",),
    ("error_file", "columns_first"): (2,),
    ("error_file", "has_quotes"): (False,),
    ("error_file", "rate_limit_headers"): ([],),
    ("error_file", "request_id_headers"): (["x-cap-request-id"],),
}


def compare_with_sandbox(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the facts of a report that the sandbox would have had otherwise.

    :param report: The sections of a report. A fact that it does not have is not compared.
    :return: For each difference ``fact``, ``seen`` and ``sandbox``.
    """
    return [
        {"fact": f"{section}.{name}", "seen": report[section][name], "sandbox": fitting[0]}
        for (section, name), fitting in _SANDBOX.items()
        if name in report.get(section, {}) and report[section][name] not in fitting
    ]
