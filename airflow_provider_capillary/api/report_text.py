# SPDX-License-Identifier: Apache-2.0
"""Assembles the doctor's report: one JSON document for the public, or text for the user's own screen."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.sandbox_answers import compare_with_sandbox

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_capillary.api.diagnosis import Section

#: Grows when a fact gets another name or meaning. New facts do not change it.
VERSION = 1
_TITLES = {"host": "Host", "token": "Token", "status": "Status call", "error_file": "Error file"}
_LABEL, _LINE = 46, 120


def make_document(sections: Mapping[str, Section], versions: Mapping[str, str]) -> dict[str, Any]:
    """Return the report as JSON-ready values, fit for the public.

    :param sections: ``host``, ``token``, ``status`` and ``error_file``.
    :param versions: Package -> version.
    """
    facts = {name: section.to_dict() for name, section in sections.items()}
    return {
        "version": VERSION,
        "ok": all(section.result != "failed" for section in sections.values()),
        "versions": dict(versions),
        **facts,
        "sandbox_differences": compare_with_sandbox(facts),
    }


def render_text(document: Mapping[str, Any], sections: Mapping[str, Section], *, conn_id: str, series: str) -> str:
    """Return the report for the user's own screen: the facts, and the notes, which have the host.

    :param document: The report of :func:`make_document`.
    :param sections: Its sections.
    :param conn_id: Airflow connection.
    :param series: Coupon series.
    """
    lines = [
        f"Capillary doctor: Airflow connection {conn_id!r}, coupon series {series}",
        ", ".join(f"{name} {version}" for name, version in document["versions"].items()),
        "Nothing was uploaded or changed.",
    ]
    for name, section in sections.items():
        lines += ["", f"{_TITLES[name]}: {section.result}"]
        for label, value in (*section.notes.items(), *section.facts.items()):
            lines += _lines(label.replace("_", " "), _shown(value))
    lines += ["", "Differences from the sandbox:"]
    lines += [
        f"  {each['fact']}: {_shown(each['seen'])} (sandbox: {_shown(each['sandbox'])})"
        for each in document["sandbox_differences"]
    ] or ["  none"]
    lines += [
        "",
        "All steps went well." if document["ok"] else "A step failed.",
        "To share this report, run the command again with --json, which leaves hosts and ids out.",
    ]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_shown(each)}" for name, each in value.items()) or "none"
    return str(value)


def _lines(label: str, text: str) -> list[str]:
    """Return a fact as one line, or as several where it is long."""
    indent = " " * (_LABEL + 4)
    wrapped = textwrap.wrap(text, _LINE, initial_indent=indent, subsequent_indent=indent) or [indent]
    return [f"  {label:<{_LABEL}}  {wrapped[0].lstrip()}", *wrapped[1:]]
