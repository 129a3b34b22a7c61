# SPDX-License-Identifier: Apache-2.0
"""``python -m airflow_provider_capillary.doctor``: a report about a connection."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; return 0 if all steps went well, 1 if not, 2 if the arguments cannot be used."""
    given = _parser().parse_args(arguments)
    return run(given.conn_id, given.series, as_json=given.json)


def run(conn_id: str, series: str, *, as_json: bool) -> int:
    """Print the report about a connection and a coupon series.

    :param conn_id: Airflow connection of type ``capillary``.
    :param series: The coupon series.
    :param as_json: Whether to print one JSON document, fit for the public, in place of text.
    :return: 0 if all steps went well, 1 if not, 2 if an argument cannot be used.
    """
    output = sys.stdout
    # Airflow logs to stdout when it is imported and configured, and the output may be read by a program.
    with contextlib.redirect_stdout(sys.stderr), _as_command_of_airflow():
        from airflow_provider_capillary import __version__
        from airflow_provider_capillary._airflow_compat import AIRFLOW_VERSION, AirflowNotFoundException, BaseHook
        from airflow_provider_capillary._transport.connections import read_settings, undefined_connection
        from airflow_provider_capillary.api.errors import CapillaryError
        from airflow_provider_capillary.api.report_text import make_document, render_text
        from airflow_provider_capillary.api.values import parse_id
        from airflow_provider_capillary.doctor.examination import examine

        try:
            series_id = parse_id("SERIES", series)
        except CapillaryError as error:
            return _refuse(str(error), 2)
        try:
            settings = read_settings(conn_id, BaseHook.get_connection)
            sections = examine(settings, series_id)
        except AirflowNotFoundException:
            return _refuse(undefined_connection(conn_id).message, 2)
        except CapillaryError as error:
            return _refuse(str(error), 1)
        versions = {
            "airflow-provider-capillary": __version__,
            "apache-airflow": ".".join(map(str, AIRFLOW_VERSION)),
            "python": platform.python_version(),
        }
        document = make_document(sections, versions)
    if as_json:
        text = json.dumps(document, indent=2)
    else:
        text = render_text(document, sections, conn_id=conn_id, series=str(series_id))
    output.write(f"{text}\n")
    output.flush()
    return 0 if document["ok"] else 1


@contextlib.contextmanager
def _as_command_of_airflow() -> Iterator[None]:
    """Have Airflow read connections from its database, too, as its own commands do. A task reads them elsewhere."""
    name = "_AIRFLOW_PROCESS_CONTEXT"
    before = os.environ.get(name)
    os.environ[name] = "server"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _refuse(problem: str, code: int) -> int:
    sys.stderr.write(f"doctor: {problem}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_capillary.doctor",
        description="Report which answers Capillary gives for a connection: host, token, status of uploads, error "
        "file. It only reads. Exit code 0: all steps went well; 1: not all did; 2: an argument cannot be used.",
    )
    parser.add_argument("conn_id", metavar="CONN_ID", help="Airflow connection of type capillary")
    parser.add_argument("series", metavar="SERIES", help="coupon series, best one whose last upload has errors")
    parser.add_argument(
        "--json", action="store_true", help="print a JSON document without hosts, ids and values, for a public issue"
    )
    return parser


if __name__ == "__main__":
    code = main()
    # Airflow before 3.1 may log while the process ends, behind the JSON document.
    sys.stdout = sys.stderr
    sys.exit(code)
