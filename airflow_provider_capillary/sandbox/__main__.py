# SPDX-License-Identifier: Apache-2.0
"""``python -m airflow_provider_capillary.sandbox``: a local Capillary for a person."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from airflow_provider_capillary.sandbox.endpoints import is_loopback
from airflow_provider_capillary.sandbox.http_messages import REFUSALS, UPLOAD_AUTHS
from airflow_provider_capillary.sandbox.jobs import KINDS
from airflow_provider_capillary.sandbox.server import Sandbox
from airflow_provider_capillary.sandbox.validation import FieldError

_WARNING = (
    "Warning: {} is no loopback address: anyone who reaches it can use this sandbox. From another machine, "
    'put the name of this one into the host of the connection, and "allow_http": true into its extra.'
)


def main(arguments: list[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM; return 0 after a clean stop, 1 if it cannot serve, 2 for wrong options."""
    settings = vars(_parser().parse_args(arguments))
    series, kinds, file, quiet = map(settings.pop, ("seed_series", "seed_kind", "connection_file", "quiet"))
    # Taken by sigwait below, never by a handler: a signal during the start or the stop cannot break in.
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        with Sandbox(**settings, access_log=None if quiet else _log) as sandbox:
            _introduce(sandbox, list(dict.fromkeys(series)), kinds)
            if settings["host"] != "localhost" and not is_loopback(settings["host"]):
                _log(_WARNING.format(settings["host"]))
            with contextlib.ExitStack() as stack:
                if file is not None:
                    # Last, so that the sandbox is complete when the file appears.
                    _write_connection(sandbox, file)
                    stack.callback(file.unlink, missing_ok=True)
                signal.sigwait(signals)
    except FieldError as error:
        _log(f"sandbox: {error}")
        return 2
    except OSError as error:
        place = error.filename or f"{settings['host']}:{settings['port']}"
        _log(f"sandbox: {place}: {(error.strerror or '').partition(' (')[0]}")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_capillary.sandbox",
        description="A local Capillary, for developing DAGs without an account. Times (S) are in seconds.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    seconds: dict[str, Any] = {"type": float, "metavar": "S", "default": 5.0}
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=8010, help="port to listen on; 0: any that is free")
    add("--client-key", default="sandbox-key", help="key that the token endpoint accepts")
    add("--client-secret", default="sandbox-secret", help="secret that goes with it")
    add("--token-ttl", dest="token_ttl_seconds", type=int, default=300, metavar="S", help="lifetime of tokens")
    add("--queued-seconds", **seconds, help="how long a job is QUEUED")
    add("--started-seconds", **seconds, help="how long it is then STARTED")
    add("--list-lag-seconds", **seconds | {"default": 0.0}, help="how long a new job is missing from the status list")
    add("--refusal", choices=REFUSALS, default="http_401", help="how a token is refused")
    auth_help = "token that uploads need: in its own header (oauth), or as Authorization: Bearer; any: in either"
    add("--upload-auth", choices=UPLOAD_AUTHS, default="any", help=auth_help)
    add("--seed-series", type=int, nargs="*", default=[535512], metavar="ID", help="coupon series; without an ID: none")
    add("--seed-kind", choices=KINDS, nargs="+", default=["redeem"], help="kinds of their jobs")
    add("--quiet", action="store_true", help="no line on stderr for each request")
    add("--connection-file", type=Path, metavar="PATH", help="write the connection there as JSON, while it serves")
    return parser


def _log(line: str) -> None:
    # One write for the whole line, so that lines of several threads do not mix.
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{line}\n")  # which Python sends at the end of each line


def _write_connection(sandbox: Sandbox, path: Path) -> None:
    """Write the connection to a file that appears complete, and readable for its owner alone."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(sandbox.connection_json())
    Path(file.name).replace(path)


def _seed(sandbox: Sandbox, coupon_series_id: int, kind: str) -> str:
    """Give a series some history and a job in progress; return a line about it."""
    for days_ago, rows, errors in ((3, 120, 0), (2, 95, 4), (1, 133, 0)):
        sandbox.add_job(coupon_series_id, kind=kind, rows=rows, errors=errors, age_seconds=days_ago * 86_400)
    job = sandbox.add_job(coupon_series_id, kind=kind, rows=110, errors=3)
    last = f"job {job.job_id}, which has just come in and ends with 3 errors"
    return f"Coupon series {coupon_series_id}, kind {kind}: three jobs of the last days, and {last}."


def _introduce(sandbox: Sandbox, series: list[int], kinds: list[str]) -> None:
    control = f"{sandbox.base_url}/sandbox"
    seeded = [_seed(sandbox, one, kind) for one in series for kind in dict.fromkeys(kinds)]
    job = f'{{"coupon_series_id": {[*series, 535512][0]}, "rows": 10, "errors": 2}}'
    fault = '{"kind": "status", "endpoint": "status", "status": 503, "times": 2}'
    print(
        f"Capillary sandbox on {sandbox.base_url}",
        f"export AIRFLOW_CONN_CAPILLARY_DEFAULT={shlex.quote(sandbox.connection_json())}",
        "\n".join(seeded or ["No coupon series yet."]),
        f"Show it:        curl -s {control}\n"
        f"Add a job:      curl -s {control}/jobs -d '{job}'\n"
        f"Add a fault:    curl -s {control}/faults -d '{fault}'\n"
        f"Clear faults:   curl -s -X DELETE {control}/faults\n"
        "Stop it:        Ctrl-C",
        sep="\n\n",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
