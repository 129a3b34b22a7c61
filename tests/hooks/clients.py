# SPDX-License-Identifier: Apache-2.0
"""Both hooks behind one face, so that what both promise is tested of both by the same words."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.retry import HttpRetry
from airflow_provider_capillary.hooks.capillary import CapillaryAsyncHook, CapillaryHook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_capillary.api.job_history import JobHistory
    from airflow_provider_capillary.api.jobs import UploadJob

#: Tries as often as the default policy, but without making anybody wait.
QUICK = HttpRetry(base_seconds=0.01, cap_seconds=0.05, retry_after_cap_seconds=0.2)
CONN_ID = "capillary_default"
SERIES = 535512
TOKEN_HEADER = "X-CAP-API-OAUTH-TOKEN"


@dataclass(frozen=True)
class Opened:
    """A hook that is ready to be asked, again and again."""

    hook: Any
    wait: Callable[[Any], Any]

    def jobs(self, series: int | str = SERIES) -> list[UploadJob]:
        """Ask for all jobs of a series."""
        return self.wait(self.hook.get_redeem_upload_jobs(series))

    def history(self, series: int | str = SERIES, before: JobHistory | None = None) -> JobHistory:
        """Ask for all jobs of a series, as repeated polls do."""
        return self.wait(self.hook.get_redeem_upload_history(series, before))

    def job(self, series: int | str, job_id: int | str) -> UploadJob:
        """Ask for one job."""
        return self.wait(self.hook.get_redeem_upload_job(series, job_id))


@dataclass(frozen=True)
class Client:
    """One of the two hooks."""

    hook_class: type[CapillaryHook] | type[CapillaryAsyncHook]

    @property
    def is_async(self) -> bool:
        """Whether its answers are awaited."""
        return self.hook_class is CapillaryAsyncHook

    @contextmanager
    def opened(self, conn_id: str = CONN_ID, *, policy: HttpRetry | None = QUICK) -> Iterator[Opened]:
        """Open a hook, and close it in the end."""
        hook = self.hook_class(conn_id, http_retry=policy)
        if not self.is_async:
            yield Opened(hook, lambda answer: answer)
            return
        with asyncio.Runner() as runner:
            runner.run(hook.__aenter__())
            try:
                yield Opened(hook, runner.run)
            finally:
                runner.run(hook.__aexit__(None, None, None))

    def jobs(
        self, conn_id: str = CONN_ID, *, series: int | str = SERIES, policy: HttpRetry | None = QUICK
    ) -> list[UploadJob]:
        """Ask for all jobs of a series with a hook of its own."""
        with self.opened(conn_id, policy=policy) as hook:
            return hook.jobs(series)

    def job(self, series: int | str, job_id: int | str, *, conn_id: str = CONN_ID) -> UploadJob:
        """Ask for one job with a hook of its own."""
        with self.opened(conn_id) as hook:
            return hook.job(series, job_id)


SYNC = Client(CapillaryHook)
ASYNC = Client(CapillaryAsyncHook)


def file_bytes(size: int) -> bytes:
    """Return random content of a file that begins as nothing does which may come in place of one."""
    return (b"m" + os.urandom(size))[:size]
