# SPDX-License-Identifier: Apache-2.0
"""State of a local Capillary: settings, tokens, jobs, faults and recorded requests. No socket."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import secrets
import threading
import time
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, replace
from datetime import datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from airflow_provider_capillary.sandbox.http_messages import ENDPOINTS, REFUSALS, UPLOAD_AUTHS, RecordedRequest
from airflow_provider_capillary.sandbox.jobs import KINDS, SandboxJob, generate_error_file
from airflow_provider_capillary.sandbox.validation import FieldError, check_choice, check_types

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_capillary.sandbox.faults import Fault

_FIRST_JOB_ID = 4455
_MAX_AGE_SECONDS = 30 * 366 * 86_400  # beyond the age of any job, and within the range of dates
_MAX_RECORDED_REQUESTS = 10_000  # a sandbox may run for weeks; the counts cover all requests


@dataclass(kw_only=True, eq=False, repr=False)
class SandboxState:
    """State of a local Capillary; safe to use from several threads. ``Sandbox`` documents the settings."""

    host: str = "127.0.0.1"
    port: int = 0
    client_key: str = "sandbox-key"
    client_secret: str = "sandbox-secret"
    org_id: int = 100458
    token_ttl_seconds: float = 300
    ttl_in_answer: bool = True
    queued_seconds: float = 0.0
    started_seconds: float = 0.0
    list_lag_seconds: float = 0.0
    cluster_timezone: str = "Asia/Kolkata"
    ssl_context: ssl.SSLContext | None = None
    file_ranges: bool = True
    refusal: str = "http_401"
    bad_credentials_status: int = 200
    upload_auth: str = "any"
    access_log: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        check_types(SandboxState.__annotations__, vars(self), port=(0, 65535), bad_credentials_status=(200, 599))
        check_choice("refusal", self.refusal, REFUSALS)
        check_choice("upload_auth", self.upload_auth, UPLOAD_AUTHS)
        try:
            self._zone = ZoneInfo(self.cluster_timezone)
        except (KeyError, ValueError, OSError):  # unknown, no name at all, a folder of names
            raise FieldError("cluster_timezone", "is not a known time zone") from None
        self._address = self.host  # to listen on
        with contextlib.suppress(ValueError):
            if (address := ip_address(self.host)).is_unspecified:
                self.host = "127.0.0.1" if address.version == 4 else "::1"
        self.clock: Callable[[], float] = time.time
        self.further_secrets: set[str] = set()
        self._lock = threading.RLock()
        self._token_ends: dict[str, float] = {}
        self._jobs: dict[int, SandboxJob] = {}
        self._file_names: set[str] = set()
        # Uploads are processed one at a time; their coupons, by kind and coupon series.
        self.upload_lock = threading.Lock()
        self.coupons: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
        self._faults: list[Fault] = []
        self._requests: deque[RecordedRequest] = deque(maxlen=_MAX_RECORDED_REQUESTS)
        self._counts: Counter[str] = Counter()

    @property
    def base_url(self) -> str:
        """Address with scheme and port, without a slash at the end; it stays the same after a stop."""
        if not self.port:
            raise RuntimeError("the sandbox has no port before it is started")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.ssl_context else 'http'}://{host}:{self.port}"

    def connection(self, **extra: Any) -> dict[str, Any]:
        """Return the Airflow connection to this sandbox, with ``extra`` in its extra.

        With ``auth_type="bearer"``, it has a new token in place of key and secret.
        """
        bearer = extra.get("auth_type") == "bearer"
        return {
            "conn_type": "capillary",
            "host": self.base_url.rpartition(":")[0],
            "port": self.port,
            "login": None if bearer else self.client_key,
            "password": self.issue_token() if bearer else self.client_secret,
            "extra": extra,
        }

    def connection_json(self, **extra: Any) -> str:
        """Return the connection as the value of ``AIRFLOW_CONN_CAPILLARY_DEFAULT``."""
        return json.dumps(self.connection(**extra))

    def cluster_time(self) -> datetime:
        """Return the time on the cluster."""
        return datetime.fromtimestamp(self.clock(), self._zone)

    # Tokens: each call issues another one, and all of them live side by side (documented).

    def issue_token(self, *, ttl_seconds: float | None = None) -> str:
        """Issue a token like the real ones: three base64url parts, with the lifetime in its claims (sample).

        :param ttl_seconds: its lifetime; negative: it has expired; None: as the sandbox is set
        """
        ttl = self.token_ttl_seconds if ttl_seconds is None else ttl_seconds
        issued_at = int(self.clock())
        claims = {"org": self.org_id, "jti": secrets.token_hex(8), "iat": issued_at, "exp": int(issued_at + ttl)}
        parts = (b'{"kid": "sandbox", "alg": "RS256"}', json.dumps(claims).encode(), secrets.token_bytes(32))
        token = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
        with self._lock:
            self._token_ends[token] = self.clock() + ttl
        return token

    def accepts_token(self, token: str | None) -> bool:
        """Whether ``token`` was issued here and has not expired."""
        with self._lock:
            return token is not None and self._token_ends.get(token, float("-inf")) > self.clock()

    def expire_tokens(self) -> None:
        """Refuse every token issued so far from now on."""
        with self._lock:
            self._token_ends = dict.fromkeys(self._token_ends, float("-inf"))

    @property
    def tokens_issued(self) -> list[str]:
        """Every token ever issued, oldest first, so that a test can search its logs for them."""
        with self._lock:
            return list(self._token_ends)

    # Jobs

    def add_job(
        self,
        coupon_series_id: int,
        *,
        kind: str = "redeem",
        status: str | None = None,
        ends: str | None = None,
        rows: int = 3,
        errors: int = 0,
        error_file: bytes | Path | None = None,
        job_id: int | None = None,
        uploaded_file_name: str | None = None,
        queued_seconds: float | None = None,
        started_seconds: float | None = None,
        list_lag_seconds: float | None = None,
        error_file_url: str | None = "handle",
        success_file: bytes | Path | None = None,
        uploaded_file: bytes | Path | None = None,
        age_seconds: float = 0.0,
    ) -> SandboxJob:
        """Add an upload job, as if a file had been uploaded.

        :param coupon_series_id: number of the coupon series
        :param kind: ``redeem`` for redeemed coupons, ``coupon`` for coupons
        :param status: fixed status, any text; None: it goes from QUEUED to STARTED to ``ends``
        :param ends: final status; None: COMPLETED for redeemed coupons, FINISHED for coupons
        :param rows: number of rows in the upload
        :param errors: number of rows refused
        :param error_file: its bytes, or a path that is read for each request; None: made up, a row for each error
        :param job_id: number of the job; None: one more than the largest
        :param uploaded_file_name: name under which the upload is stored; None: made up
        :param queued_seconds: how long it is QUEUED, in seconds; None: as the sandbox is set
        :param started_seconds: how long it is then STARTED; None: as the sandbox is set
        :param list_lag_seconds: how long the status endpoint leaves it out; None: as the sandbox is set
        :param error_file_url: ``errorFileUrl`` once the job is done and has an error file: ``handle`` for a bare
            handle of the usual form, None for null, any other text as given. An address under ``/files/`` of this
            sandbox leads to the error file
        :param success_file: the file of the accepted rows, likewise; None: there is none, as in every sample
        :param uploaded_file: the file behind ``uploadedFileUrl``, likewise; None: it was not kept
        :param age_seconds: how long ago the job was made, in seconds
        :raises ValueError: if a value cannot be used; the message names the field
        """
        check_types(SandboxState.add_job.__annotations__, locals(), age_seconds=(0, _MAX_AGE_SECONDS))
        check_choice("kind", kind, KINDS)
        if error_file is None and errors:
            error_file = generate_error_file(KINDS[kind], errors)
        with self._lock:
            if job_id is None:
                job_id = max(self._jobs, default=_FIRST_JOB_ID - 1) + 1
            elif job_id in self._jobs:
                raise FieldError("job_id", "is taken")
            began = self.clock() - age_seconds
            made_at = datetime.fromtimestamp(round(began, 3), self._zone)
            if uploaded_file_name is None:
                uploaded_file_name = self.stored_name(KINDS[kind].file_name, coupon_series_id, began)
            handle = f"error_{KINDS[kind].prefix}{self.org_id}_{coupon_series_id}{made_at:%Y_%m_%d_%H_%M_%S}"
            if handle in self._file_names:
                handle = f"{handle}_{job_id}"
            starts_at = began + (self.queued_seconds if queued_seconds is None else queued_seconds)
            ends_at = starts_at + (self.started_seconds if started_seconds is None else started_seconds)
            schedule = [(-math.inf, "QUEUED"), (starts_at, "STARTED"), (ends_at, ends or KINDS[kind].ends)]
            lag = self.list_lag_seconds if list_lag_seconds is None else list_lag_seconds
            self._jobs[job_id] = job = SandboxJob(
                kind=kind,
                job_id=job_id,
                coupon_series_id=coupon_series_id,
                org_id=self.org_id,
                uploaded_file_name=uploaded_file_name,
                rows=rows,
                errors=errors,
                handle=handle,
                error_file=error_file,
                url=handle if error_file_url == "handle" else error_file_url,
                success_file=success_file,
                uploaded_file=uploaded_file,
                made_at=made_at,
                listed_at=began + lag,
                clock=lambda: self.clock(),  # noqa: PLW0108 - the clock may be replaced later
                schedule=schedule if status is None else [(-math.inf, status)],
            )
            self._file_names |= {handle, uploaded_file_name}
            return job

    def stored_name(self, name: str, coupon_series_id: int, at: float) -> str:
        """Return the name under which an upload is stored: ``{name}_{milliseconds}_{series}.csv``."""
        stamp = round(at * 1000)
        # Two uploads in one millisecond must not share a name: a client finds its job by it.
        while (stored := f"{name}_{stamp}_{coupon_series_id}.csv") in self._file_names:
            stamp += 1
        return stored

    def jobs(self, coupon_series_id: int | None = None, *, kind: str | None = None) -> list[SandboxJob]:
        """Return the jobs of a series or of all, of a kind or of both, in the order they were added."""
        with self._lock:
            jobs = [job for job in self._jobs.values() if coupon_series_id in (None, job.coupon_series_id)]
            return [job for job in jobs if kind in (None, job.kind)]

    def finish(self, job: SandboxJob, status: str | None = None) -> None:
        """End a job at once, with this status; None: the usual one of its kind."""
        check_types(SandboxState.finish.__annotations__, locals())
        job.finish(status)

    def file(self, name: str) -> tuple[bytes | Path, datetime] | None:
        """Return the file of this name and its date, once it is available. The name is never used as a path."""
        found = ((job.file(name), job.made_at) for job in reversed(self.jobs()))
        return next(((content, made_at) for content, made_at in found if content is not None), None)

    # Faults

    def inject(self, fault: Fault) -> None:
        """Add a fault behind those already there; the first that fits takes a request."""
        with self._lock:
            self._faults.append(fault)

    def clear_faults(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults.clear()

    @property
    def faults(self) -> list[dict[str, Any]]:
        """The pending faults: kind, endpoint, and the remaining ``skip`` and ``times``."""
        with self._lock:
            return [{"kind": f.kind, "endpoint": f.endpoint, "skip": f.skip, "times": f.times} for f in self._faults]

    def take_fault(self, endpoint: str, file_name: Callable[[], str] | None = None) -> Fault | None:
        """Return the fault that a request to ``endpoint`` meets, and count it; ``control`` meets none.

        :param file_name: returns the name of the file in an upload; None: the body is not read yet
        """
        with self._lock:
            for index, fault in enumerate(self._faults):
                fits = fault.endpoint in ("any", endpoint) and endpoint in ENDPOINTS
                if not fits or fault.read_body != (file_name is not None):
                    continue
                if fault.file_name and file_name and fault.file_name not in file_name():
                    continue
                if fault.skip:
                    self._faults[index] = replace(fault, skip=fault.skip - 1)
                    continue
                if fault.times == 1:
                    del self._faults[index]
                elif fault.times is not None:
                    self._faults[index] = replace(fault, times=fault.times - 1)
                return fault
            return None

    # Recorded requests

    def record(self, request: RecordedRequest) -> None:
        """Keep and count a request, unless it goes to ``/sandbox``."""
        if request.endpoint in ENDPOINTS:
            with self._lock:
                self._requests.append(request)
                self._counts[request.endpoint] += 1

    @property
    def requests(self) -> list[RecordedRequest]:
        """The newest ten thousand requests, oldest first, without those to ``/sandbox``."""
        with self._lock:
            return list(self._requests)

    @property
    def counts(self) -> dict[str, int]:
        """Number of requests to each endpoint."""
        with self._lock:
            return dict(self._counts)

    def count(self, endpoint: str) -> int:
        """Return the number of requests to ``token``, ``status``, ``upload``, ``download``, ``files`` or ``other``."""
        check_choice("endpoint", endpoint, ENDPOINTS)
        return self.counts.get(endpoint, 0)
