# SPDX-License-Identifier: Apache-2.0
"""What the tests of the hooks share."""

from __future__ import annotations

import contextlib
import json
import ssl
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.sandbox import Sandbox
from tests.connections import forget_connection_states
from tests.hooks.clients import ASYNC, CONN_ID, QUICK, SYNC, Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_capillary.api.retry import HttpRetry

    Connect = Callable[..., str]
    Start = Callable[..., Sandbox]


# Where the HTTP libraries and OpenSSL read trusted certificates from.
BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither certificates nor a proxy of the machine that the tests happen to run on."""
    for name in (*BUNDLE_VARIABLES, "SSL_CERT_DIR", *_PROXY_VARIABLES):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(autouse=True)
def fresh_process() -> None:
    """No test finds the token or the request limit of another, as if the process had just begun."""
    forget_connection_states()


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a sandbox that is set up as given."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Sandbox(**settings))


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Define an Airflow connection to a sandbox and return its id.

    ``fields`` replaces standard fields; other names go into extra.
    """

    def define(
        sandbox: Sandbox, conn_id: str = CONN_ID, /, *, fields: dict[str, Any] | None = None, **extra: Any
    ) -> str:
        # The limit of requests is not what these tests are about.
        connection = sandbox.connection(**{"requests_per_minute": 1_000_000, **extra}) | (fields or {})
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
        return conn_id

    return define


@pytest.fixture
def conn_id(sandbox: Sandbox, connect: Connect) -> str:
    """The id of an Airflow connection to the sandbox."""
    return connect(sandbox)


@pytest.fixture
def quick() -> HttpRetry:
    """A policy that tries as often as the default one, with hardly any waiting."""
    return QUICK


@pytest.fixture
def hook(conn_id: str) -> CapillaryHook:
    """The blocking hook on the sandbox."""
    return CapillaryHook(conn_id, http_retry=QUICK)


@pytest.fixture(params=[SYNC, ASYNC], ids=["sync", "async"])
def client(request: pytest.FixtureRequest) -> Client:
    """Each of the two hooks."""
    return request.param


@dataclass
class Logged:
    """Everything that was logged or printed in any way."""

    _caplog: pytest.LogCaptureFixture
    _capfd: pytest.CaptureFixture[str]
    _printed: str = ""

    @property
    def text(self) -> str:
        """All of it."""
        out, err = self._capfd.readouterr()  # Airflow's loggers print, those of the libraries do not
        self._printed += out + err
        records = "\n".join(repr(record.__dict__) for record in self._caplog.records)
        return f"{self._printed}\n{self._caplog.text}\n{records}"


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Logged:
    """What all loggers say, at their most talkative."""
    caplog.set_level("DEBUG")
    return Logged(caplog, capfd)


@dataclass
class Watch:
    """System calls that Python announces, while they are watched."""

    events: list[tuple[int, str, tuple[Any, ...]]] = field(default_factory=list)

    def of(self, *names: str, thread: int | None = None) -> list[tuple[Any, ...]]:
        """Arguments of the events of these names, of all threads or of one."""
        return [args for ident, name, args in self.events if name in names and thread in (None, ident)]

    @property
    def addresses(self) -> list[Any]:
        """Where connections were made to."""
        return [args[1] for args in self.of("socket.connect")]


_NOTED = frozenset({"socket.connect", "socket.getaddrinfo", "socket.bind", "time.sleep", "open"})
_watches: list[Watch] = []


def _note(event: str, args: tuple[Any, ...]) -> None:
    if _watches and event in _NOTED:
        for watch in _watches:
            watch.events.append((threading.get_ident(), event, args))


sys.addaudithook(_note)


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Record connections, lookups of names, opened files and sleeps of the whole process, without patching any."""
    seen = Watch()
    _watches.append(seen)
    yield seen
    _watches.remove(seen)


@dataclass(frozen=True)
class Authority:
    """A certificate authority that nobody trusts unless configured to."""

    ca: trustme.CA
    bundle: Path

    def server_context(self, *names: str) -> ssl.SSLContext:
        """What a server of these names needs."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*(names or ("127.0.0.1",))).configure_cert(context)
        return context


def make_authority(folder: Path, name: str) -> Authority:
    """Return an authority that keeps its certificate in a folder."""
    authority = Authority(trustme.CA(), folder / f"{name}.pem")
    authority.ca.cert_pem.write_to_path(str(authority.bundle))
    return authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority of the TLS tests."""
    return make_authority(tmp_path_factory.mktemp("authority"), "trusted")


@pytest.fixture(scope="session")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another one, which has nothing to do with it."""
    return make_authority(tmp_path_factory.mktemp("authority"), "other")
