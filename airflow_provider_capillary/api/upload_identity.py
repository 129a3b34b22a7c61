# SPDX-License-Identifier: Apache-2.0
"""The token by which an upload is recognised, however often its task runs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class TaskIdentity:
    """Identifies what a task uploads, over all tries of the task.

    :param dag_id: The DAG.
    :param task_id: The task.
    :param run_id: The DAG run.
    :param map_index: Index of a mapped task; -1 for one that is not mapped.
    :param forced: Empty. With ``force=True``: text that differs from clearing to clearing, but not between the retries
        after one of them.
    """

    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    forced: str = ""

    def token(self, *, kind: str, coupon_series_id: int, part: int, sha256: str) -> str:
        """Return the token of one part of a file: 24 hexadecimal digits.

        It depends on the content too: a file that was corrected before its task was cleared is another upload.

        :param kind: Name of the kind of upload.
        :param coupon_series_id: The coupon series.
        :param part: Number of the part, from 0.
        :param sha256: SHA-256 of the part as it is sent, in hex.
        """
        facts = [*asdict(self).values(), kind, coupon_series_id, part, sha256]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]


def tries_before_clearing(*, max_tries: int, retries: int) -> int:
    """Return how many tries a task had made when it was last cleared; 0 if it never was.

    Airflow sets ``max_tries`` of a cleared task to the tries that it made plus its retries.

    :param max_tries: ``max_tries`` of the task instance.
    :param retries: ``retries`` of the task.
    """
    return max(0, max_tries - retries)
