# SPDX-License-Identifier: Apache-2.0
"""The address of an object in the web console of its store.

Formats: ``https://s3.console.aws.amazon.com/s3/object/{bucket}?prefix={key}`` finds the region of the bucket itself.
``https://console.cloud.google.com/storage/browser/_details/{bucket}/{key}`` needs no project.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from airflow_provider_capillary._storage.stores.base import ObjectLocation

log = logging.getLogger(__name__)

#: Beginning of a region -> the console of its partition. Others, which only some governments reach, have no link.
_AWS_CONSOLES = {
    "cn-": "console.amazonaws.cn",
    "us-gov-": "console.amazonaws-us-gov.com",
    "us-iso": None,
    "eusc-": None,
    "": "s3.console.aws.amazon.com",
}
_AWS_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
_AWS_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")


def console_url(location: ObjectLocation) -> str | None:
    """Return the address of an object in the console of its store.

    :param location: The object.
    :return: None if its store has no console, or whether it has cannot be found out.
    """
    try:
        if location.scheme in ("s3", "s3a", "s3n"):
            return _s3_url(location)
        if location.scheme in ("gs", "gcs"):
            return _gcs_url(location)
    except Exception as error:  # noqa: BLE001 - the providers of the stores raise any class, and it is only a link
        log.info("No link to %s in its console (%s)", location.uri, type(error).__name__)
    return None


def _s3_url(location: ObjectLocation) -> str | None:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    if location.container.startswith("arn:"):  # of an access point, which the console opens by another id
        return None
    config = S3Hook(aws_conn_id=location.conn_id).conn_config
    if config.get_service_endpoint_url("s3") or any(map(os.environ.get, _AWS_ENDPOINTS)):
        return None
    profile = _aws_profile(config.profile_name)
    if "endpoint_url" in profile or "services" in profile:
        return None
    region = config.region_name or next(filter(None, map(os.environ.get, _AWS_REGIONS)), None) or profile.get("region")
    host = next(host for start, host in _AWS_CONSOLES.items() if str(region or "").startswith(start))
    return host and f"https://{host}/s3/object/{location.container}?prefix={quote(location.key)}"


def _aws_profile(name: str | None) -> dict[str, Any]:
    """Return what the configuration file of the machine says about a profile."""
    from botocore.session import Session

    return dict(Session(profile=name).get_scoped_config())


def _gcs_url(location: ObjectLocation) -> str | None:
    from airflow_provider_capillary._airflow_compat import BaseHook

    if os.environ.get("STORAGE_EMULATOR_HOST"):
        return None
    if location.conn_id is not None and BaseHook.get_connection(location.conn_id).extra_dejson.get("gcs.endpoint"):
        return None
    return f"https://console.cloud.google.com/storage/browser/_details/{location.container}/{quote(location.key)}"
