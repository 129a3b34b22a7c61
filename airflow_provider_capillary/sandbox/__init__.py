# SPDX-License-Identifier: Apache-2.0
"""A local Capillary, for trying DAGs without an account and for the tests of this package.

``python -m airflow_provider_capillary.sandbox`` serves one from a shell, and a test makes its own::

    with Sandbox() as sandbox:
        job = sandbox.add_job(535512, errors=2)
        sandbox.inject(Fault("status", endpoint="status", status=503, times=2))
        ...  # point a connection at sandbox.connection()

It imports neither Airflow nor the rest of this package, so it starts in a fraction of a second. Uploads need
python-multipart: Airflow 3 brings it, elsewhere the extra ``sandbox`` does.
"""

from __future__ import annotations

from airflow_provider_capillary.sandbox.faults import Fault
from airflow_provider_capillary.sandbox.http_messages import RecordedRequest
from airflow_provider_capillary.sandbox.jobs import SandboxJob
from airflow_provider_capillary.sandbox.server import Sandbox

__all__ = ["Fault", "RecordedRequest", "Sandbox", "SandboxJob"]
