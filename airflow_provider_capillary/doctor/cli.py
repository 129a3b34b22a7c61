# SPDX-License-Identifier: Apache-2.0
"""The command ``airflow capillary doctor``, since Airflow 3.2. Imported each time that ``airflow`` starts."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from airflow_provider_capillary._airflow_compat import ActionCommand, Arg, GroupCommand, lazy_load_command

if TYPE_CHECKING:
    from argparse import Namespace


def get_capillary_cli_commands() -> list[GroupCommand]:
    """Return the commands of this provider."""
    doctor = ActionCommand(
        name="doctor",
        help="Report which answers Capillary gives for a connection; it only reads",
        func=lazy_load_command(f"{__name__}.doctor"),
        args=(
            Arg(("conn_id",), metavar="CONN_ID", help="Airflow connection of type capillary"),
            Arg(("series",), metavar="SERIES", help="Coupon series"),
            Arg(("--json",), action="store_true", help="Print a JSON document without hosts, ids and values"),
        ),
    )
    return [GroupCommand(name="capillary", help="Commands of the Capillary provider", subcommands=(doctor,))]


def doctor(given: Namespace) -> None:
    """Print the report, and exit with its code.

    :param given: The arguments of the command.
    """
    from airflow_provider_capillary.doctor.__main__ import run

    # `airflow` has set up its log already, and some versions log to stdout what the reading of a connection imports.
    logging.disable(logging.CRITICAL)
    try:
        code = run(given.conn_id, given.series, as_json=given.json)
    finally:
        logging.disable(logging.NOTSET)
    sys.exit(code)
