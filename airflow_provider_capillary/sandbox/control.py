# SPDX-License-Identifier: Apache-2.0
"""The sandbox's own endpoints, for a person with curl: look at it, add jobs, add and remove faults."""

from __future__ import annotations

from inspect import signature
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.sandbox.answers import Answer, json_answer
from airflow_provider_capillary.sandbox.faults import Fault
from airflow_provider_capillary.sandbox.fields import FieldError, check_names

if TYPE_CHECKING:
    from airflow_provider_capillary.sandbox.api import Request
    from airflow_provider_capillary.sandbox.jobs import SandboxJob
    from airflow_provider_capillary.sandbox.server import Sandbox


def is_loopback(address: str) -> bool:
    """Tell whether an IP address is one of this machine alone; False for anything that is no address."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    # A socket for both families shows IPv4 peers as ::ffff:127.0.0.1.
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return (mapped or parsed).is_loopback


class Control:
    """Answers requests to ``/sandbox``. Never shows a token, a secret or a row of a file.

    :param sandbox: the sandbox
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def answer(self, request: Request, *, peer: str) -> Answer:
        """Answer a request of the client at the IP address ``peer``."""
        if not is_loopback(peer):
            # There is no password here: whoever reaches a sandbox over a network may use the API alone.
            return json_answer(403, {"error": "/sandbox is there for this machine only"})
        try:
            match request.method, request.argument:
                case "GET" | "HEAD", "":
                    return json_answer(200, self._overview())
                case "POST", "jobs":
                    return self._add_job(request.json_object())
                case "POST", "faults":
                    self._sandbox.inject(Fault.from_json(request.json_object()))
                    return json_answer(201, {"faults": self._sandbox.faults})
                case "DELETE", "faults":
                    self._sandbox.clear_faults()
                    return json_answer(200, {"faults": []})
        except FieldError as error:
            return json_answer(400, {"error": str(error), "field": error.field})
        except ValueError as error:
            return json_answer(400, {"error": str(error)})
        known = "GET /sandbox, POST /sandbox/jobs, POST /sandbox/faults, DELETE /sandbox/faults"
        return json_answer(404, {"error": f"unknown; there are {known}"})

    def _add_job(self, values: dict[str, Any]) -> Answer:
        check_names(values, known=signature(self._sandbox.add_job).parameters, needed="coupon_series_id")
        for name in ("error_file", "success_file", "uploaded_file"):
            content = values.get(name)
            if content is not None:
                # The content itself. Were it a path, any page in a browser could read any file.
                if not isinstance(content, str):
                    raise FieldError(name, "must be the text of the file")
                values[name] = content.encode()
        return json_answer(201, _describe(self._sandbox.add_job(**values)))

    def _overview(self) -> dict[str, Any]:
        series: dict[str, list[dict[str, Any]]] = {}
        for job in self._sandbox.jobs():
            series.setdefault(str(job.coupon_series_id), []).append(_describe(job))
        return {
            "base_url": self._sandbox.base_url,
            "coupon_series": series,
            "faults": self._sandbox.faults,
            "requests": self._sandbox.counts,
        }


def _describe(job: SandboxJob) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "coupon_series_id": job.coupon_series_id,
        "status": job.status(),
        "rows": job.rows,
        "errors": job.errors,
        "uploaded_file_name": job.uploaded_file_name,
        "error_file": job.handle if job.error_file is not None else None,
        "error_file_bytes": job.error_file_size,
    }
