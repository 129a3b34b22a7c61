# SPDX-License-Identifier: Apache-2.0
"""Uploads of files in parts, and transfers of error files into a folder and S3, slow enough for a kill to meet them."""

from __future__ import annotations

import json
import secrets
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.sandbox import Fault
from tests.production.confidential import COUPON
from tests.production.settings import UPLOADS
from tests.production.xcoms import decoded

if TYPE_CHECKING:
    import random

    from airflow_provider_capillary.sandbox import Sandbox, SandboxJob
    from tests.integration.seaweedfs import SeaweedFS
    from tests.system.airflow_processes import AirflowProcesses

DAGS = Path(__file__).with_name("dags")
UPLOADED_SERIES, TRANSFERRED_SERIES = 830_001, 830_002
FILES = UPLOADS
#: So few that they last for most of the storm, and so many that all end within it.
UPLOADS_AT_ONCE = max(2, min(6, FILES // 30))
ROWS_PER_FILE, ROWS_PER_JOB = 25, 10
#: How many error files go into a folder, and into S3; the latter in two parts each.
TO_FOLDER, TO_S3 = 7, 5
FOLDER_BYTES, S3_BYTES = 4 * 1024 * 1024, 12 * 1024 * 1024


class Uploads:
    """Uploads and transfers on Celery workers.

    :param sandbox: Where the jobs are.
    :param folder: For the sources and a destination.
    :param s3: The other destination.
    :param randomly: Decides which answers are lost.
    """

    def __init__(self, sandbox: Sandbox, folder: Path, s3: SeaweedFS, randomly: random.Random) -> None:
        self.sandbox = sandbox
        self.s3 = s3
        self.sources, self.lake = folder / "sources", folder / "lake"
        self._random = randomly
        self.coupons = [f"{COUPON}{number}" for number in range(FILES * ROWS_PER_FILE)]
        #: The jobs by the names of the copies of their error files.
        self.to_folder: dict[str, SandboxJob] = {}
        self.to_s3: dict[str, SandboxJob] = {}

    def begin(self, cluster: AirflowProcesses) -> None:
        self._cluster = cluster
        self.sources.mkdir()
        self.lake.mkdir()
        uploads, transfers = [], []
        for number in range(FILES):
            source = self.sources / f"redeemed_{number}.csv"
            coupons = self.coupons[number * ROWS_PER_FILE : (number + 1) * ROWS_PER_FILE]
            rows = "".join(f"1732000000000,till-1,9199,{coupon}\n" for coupon in coupons)
            source.write_text(f"redeemedDateInMillis,redeemedAt,mobile,couponCode\n{rows}")
            uploads.append({"coupon_series_id": UPLOADED_SERIES, "source": str(source)})
        for number in range(TO_FOLDER + TO_S3):
            is_s3 = number >= TO_FOLDER
            size = S3_BYTES if is_s3 else FOLDER_BYTES
            content = error_file(size)
            job = self.sandbox.add_job(TRANSFERRED_SERIES, errors=content.count(b"\n") - 1, error_file=content)
            name = f"{job.job_id}.csv"
            (self.to_s3 if is_s3 else self.to_folder)[name] = job
            destination = self.s3.uri(name) if is_s3 else f"file://{self.lake}/{name}"
            given = {"coupon_series_id": TRANSFERRED_SERIES, "job_id": job.job_id, "destination": destination}
            transfers.append(given | {"object_storage_conn_id": "lake" if is_s3 else None})
        given = {"rows_per_job": ROWS_PER_JOB, "uploads": uploads, "transfers": transfers, "at_once": UPLOADS_AT_ONCE}
        # The job is made, and only the answer is lost; and no request is quick.
        for _ in range(3):
            self.sandbox.inject(Fault("reset", endpoint="upload", processed=True, skip=self._random.randrange(9)))
        self.sandbox.inject(Fault("slow", endpoint="upload", seconds=2, times=None))
        for _ in range(3):
            self.sandbox.inject(Fault("cut", endpoint="download", rst=True, skip=self._random.randrange(5)))
        self.sandbox.inject(Fault("drip", endpoint="download", seconds=6, times=None))
        cluster.add_connections(
            {
                "uploads": self.sandbox.connection(requests_per_minute=100_000),
                "lake": json.loads(self.s3.aws_connection_json()),
            }
        )
        name = "uploads_and_transfers"
        cluster.add_dags({f"{name}.json": json.dumps(given), f"{name}.py": (DAGS / f"{name}.py").read_text()})
        cluster.trigger(name)

    def is_under_way(self) -> bool:
        return {request.endpoint for request in self.sandbox.requests} >= {"upload", "download"}

    def step(self, progress: float) -> None:
        """Do nothing: it all goes on by itself."""

    def is_over(self) -> bool:
        states = list(self.states().values())
        return states == ["success"] * (FILES + TO_FOLDER + TO_S3)

    def states(self) -> dict[tuple[str, int], str]:
        """The state of each task, by task id and map index."""
        found = self._cluster.select(
            "SELECT task_id, map_index, state FROM task_instance WHERE dag_id = 'uploads_and_transfers'"
        )
        return {(task_id, map_index): state for task_id, map_index, state in found}

    def returned(self, task_id: str) -> list[Any]:
        """What each of the mapped tasks returned, in their order."""
        found = self._cluster.select(
            "SELECT value FROM xcom WHERE dag_id = 'uploads_and_transfers' AND key = 'return_value' AND task_id = ?"
            " ORDER BY map_index",
            task_id,
        )
        return [decoded(value) for (value,) in found]

    def in_folder(self) -> dict[str, str]:
        """The sha256 of each file in the folder, by its path, hidden ones included."""
        files = [file for file in self.lake.rglob("*") if not file.is_dir()]
        return {str(file.relative_to(self.lake)): sha256(file.read_bytes()).hexdigest() for file in files}

    def in_s3(self) -> dict[str, str]:
        """The sha256 of each object in S3, by its key."""
        keys = self.s3.keys()
        return {key: sha256(self.s3.read(key)).hexdigest() for key in keys}


def error_file(size: int) -> bytes:
    """Return an error file of about that many bytes, no two rows of which are the same."""
    row, length = f"Coupon is not issued,{COUPON}", 64
    noise = secrets.token_hex(size // (len(row) + length + 1) * length // 2)
    rows = (f"{row}{noise[at : at + length]}\n" for at in range(0, len(noise), length))
    return f"message,coupon code\n{''.join(rows)}".encode()
