# SPDX-License-Identifier: Apache-2.0
"""Read the error file of the newest upload job of a coupon series."""

from __future__ import annotations

# --8<-- [start:example]
from airflow_provider_capillary.hooks.capillary import CapillaryHook

hook = CapillaryHook("capillary_default")
newest = max(hook.get_redeem_upload_jobs(535512), key=lambda job: job.job_id)
if newest.is_completed and newest.error_rate:
    with hook.open_error_file(newest) as stream:
        size = sum(len(block) for block in iter(lambda: stream.read(1 << 20), b""))
# --8<-- [end:example]
