# SPDX-License-Identifier: Apache-2.0
"""``python -m airflow_provider_capillary.sandbox``: a local Capillary for a person."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_capillary.sandbox.endpoints import is_loopback
from airflow_provider_capillary.sandbox.http_messages import REFUSALS
from airflow_provider_capillary.sandbox.server import Sandbox
from airflow_provider_capillary.sandbox.validation import FieldError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_DAY = 86_400.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM.

    :param arguments: command line without the program's name; None: that of the process
    :return: exit code: 0 after a clean stop, 1 if it cannot serve, 2 for wrong options
    """
    options = _read_options(arguments)
    # Taken by sigwait below, never by a handler: a signal during the start or the stop cannot break in.
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        sandbox = Sandbox(
            host=options.host,
            port=options.port,
            client_key=options.client_key,
            client_secret=options.client_secret,
            token_ttl_seconds=options.token_ttl,
            queued_seconds=options.queued_seconds,
            started_seconds=options.started_seconds,
            refusal=options.refusal,
            access_log=None if options.quiet else _log,
        )
        with sandbox:
            _introduce(sandbox, options)
            # Last, for whoever waits for the file finds all that was promised.
            with _connection_file(sandbox, options.connection_file):
                signal.sigwait(signals)
    except FieldError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        place = error.filename or f"{options.host}:{options.port}"
        print(f"sandbox: {place}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_capillary.sandbox",
        description="A local Capillary, for developing DAGs without an account. Times (S) are in seconds.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8010, help="port to listen on; 0: any that is free")
    parser.add_argument("--client-key", default="sandbox-key", help="key that the token endpoint accepts")
    parser.add_argument("--client-secret", default="sandbox-secret", help="secret that goes with it")
    parser.add_argument("--token-ttl", type=int, default=300, metavar="S", help="lifetime of tokens")
    for step, meaning in (("queued", "how long a job is QUEUED"), ("started", "how long it is then STARTED")):
        parser.add_argument(f"--{step}-seconds", type=float, default=5.0, metavar="S", help=meaning)
    parser.add_argument("--refusal", choices=REFUSALS, default="http_401", help="how a token is refused")
    parser.add_argument(
        "--seed-series",
        type=int,
        nargs="*",
        default=[535512],
        metavar="ID",
        help="coupon series to begin with; without an ID: none",
    )
    parser.add_argument("--quiet", action="store_true", help="no line on stderr for each request")
    parser.add_argument(
        "--connection-file",
        type=Path,
        metavar="PATH",
        help="write the connection there as JSON once it serves; the file goes when it stops",
    )
    return parser.parse_args(arguments)


def _log(line: str) -> None:
    # One write for the whole line, so that lines of several threads do not mix.
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


@contextlib.contextmanager
def _connection_file(sandbox: Sandbox, path: Path | None) -> Iterator[None]:
    """Keep the connection in a file while the sandbox serves; who waits for it never reads half of it."""
    if path is None:
        yield
        return
    # mkstemp makes it readable for its owner alone.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    Path(name).write_text(sandbox.connection_json(), encoding="utf-8")
    Path(name).replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _seed(sandbox: Sandbox, coupon_series_id: int) -> str:
    """Give a series some history and a job in progress; return a line that tells of it."""
    for days_ago, rows, errors in ((3, 120, 0), (2, 95, 4), (1, 133, 0)):
        sandbox.add_job(coupon_series_id, rows=rows, errors=errors, age_seconds=days_ago * _DAY)
    job = sandbox.add_job(coupon_series_id, rows=110, errors=3)
    return (
        f"Coupon series {coupon_series_id}: three jobs of the last days, "
        f"and job {job.job_id}, which has just come in and ends with 3 errors."
    )


def _introduce(sandbox: Sandbox, options: argparse.Namespace) -> None:
    control = f"{sandbox.base_url}/sandbox"
    series = options.seed_series[0] if options.seed_series else 535512
    seeded = [_seed(sandbox, coupon_series_id) for coupon_series_id in dict.fromkeys(options.seed_series)]
    job = f'{{"coupon_series_id": {series}, "rows": 10, "errors": 2}}'
    fault = '{"kind": "status", "endpoint": "status", "status": 503, "times": 2}'
    lines = [
        f"Capillary sandbox on {sandbox.base_url}",
        "",
        f"export AIRFLOW_CONN_CAPILLARY_DEFAULT={shlex.quote(sandbox.connection_json())}",
        "",
        *(seeded or ["No coupon series yet."]),
        "",
        f"Look at it:   curl -s {control}",
        f"Add a job:    curl -s {control}/jobs -d '{job}'",
        f"Add a fault:  curl -s {control}/faults -d '{fault}'",
        f"Faults away:  curl -s -X DELETE {control}/faults",
        "Stop it:      Ctrl-C",
    ]
    print("\n".join(lines), flush=True)
    if options.host != "localhost" and not is_loopback(options.host):
        print(
            f"Warning: {options.host} is no loopback address: whoever reaches it can use this sandbox. "
            "From another machine, put the name of this one into the host of the connection, "
            'and "allow_http": true into its extra.',
            file=sys.stderr,
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
