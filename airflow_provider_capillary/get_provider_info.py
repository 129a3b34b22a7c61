# SPDX-License-Identifier: Apache-2.0
"""Describes the modules and the connection form of this provider to Airflow.

Every Airflow process calls :func:`get_provider_info` when it starts. A failure here would stop the discovery of all
providers, so this module imports nothing and only returns a literal.
"""

from __future__ import annotations


# All field types admit null: otherwise the form would mark the field as required, and it saves null for each empty
# field. No field has a "default": the form would save it in each connection, and a better default in a later release
# would apply to none of them.
def _connection_fields() -> dict[str, object]:
    return {
        "auth_type": {
            "label": "Authentication type",
            "description": (
                "oauth: client key and secret are exchanged for access tokens. bearer: the client secret is a ready "
                "token, which is sent as it is, and the client key stays empty. Default: oauth."
            ),
            "schema": {"type": ["string", "null"], "enum": ["oauth", "bearer"]},
        },
        "auth_url": {
            "label": "Authentication URL",
            "description": (
                "Where access tokens come from. Default: https://{API host}/v3/oauth/token/generate. "
                "The client key and secret are sent there. Not used with Authentication type bearer."
            ),
            "schema": {"type": ["string", "null"]},
        },
        "error_file_url": {
            "label": "Error file URL",
            "description": (
                "How the handle that Capillary reports for an error file becomes a download: a template with "
                "{handle}, either http(s) or object storage, for example s3://bucket/{handle}. "
                "Default: ask the API host."
            ),
            "schema": {"type": ["string", "null"]},
        },
        "error_file_conn_id": {
            "label": "Error file connection",
            "description": (
                "Id of the Airflow connection to read an object-storage error file URL with, for example "
                "aws_default. Default: none, that is the credentials of the worker's environment."
            ),
            "schema": {"type": ["string", "null"]},
        },
        "cluster_timezone": {
            "label": "Cluster time zone",
            "description": (
                "Time zone in which the cluster begins its day, as an IANA name such as Asia/Kolkata. "
                "Used for dates only. Default: UTC."
            ),
            "schema": {"type": ["string", "null"]},
        },
        "requests_per_minute": {
            "label": "Requests per minute",
            "description": (
                "Upper limit of the requests that one process sends with this connection in a minute. "
                "Default: 100, the documented limit of demo clusters."
            ),
            "schema": {"type": ["integer", "null"], "minimum": 1},
        },
        "timeout_seconds": {
            "label": "Timeout",
            "description": "Seconds that a single request may take before it is tried again. Default: 30.",
            "schema": {"type": ["number", "null"]},
        },
        "verify": {
            "label": "Verify TLS",
            "description": (
                "true, false, or the path of a CA bundle that workers and triggerers can read. Default: true."
            ),
            # A string, not a switch: a switch could not hold the path.
            "schema": {"type": ["string", "null"]},
        },
        "allow_http": {
            "label": "Allow plain http",
            "description": (
                "Accept an API host that is written with http:// and is not a loopback address, such as a "
                "sandbox or a gateway inside a private network. Credentials then travel unencrypted. "
                "Default: off."
            ),
            "schema": {"type": ["boolean", "null"]},
        },
        "headers": {
            "label": "Extra headers",
            "description": (
                "JSON object of headers to add to every request to the API host, and to no other host, "
                'such as {"X-CAP-API-AUTH-ORG-ID": "100458"}. Default: none.'
            ),
            "schema": {"type": ["object", "null"]},
        },
    }


def get_provider_info() -> dict[str, object]:
    """Describe this provider in the form of Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-capillary",
        "name": "Capillary",
        "description": "`Capillary <https://www.capillarytech.com/>`__, a loyalty and coupon platform.\n",
        "integrations": [
            {
                "integration-name": "Capillary",
                "external-doc-url": "https://docs.capillarytech.com/",
                "tags": ["service"],
            },
            {
                "integration-name": "Object Storage",
                "external-doc-url": (
                    "https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/objectstorage.html"
                ),
                "tags": ["software"],
            },
        ],
        "hooks": [
            {
                "integration-name": "Capillary",
                "python-modules": ["airflow_provider_capillary.hooks.capillary"],
            }
        ],
        "operators": [
            {
                "integration-name": "Capillary",
                "python-modules": ["airflow_provider_capillary.operators.capillary"],
            }
        ],
        "sensors": [
            {
                "integration-name": "Capillary",
                "python-modules": ["airflow_provider_capillary.sensors.capillary"],
            }
        ],
        "triggers": [
            {
                "integration-name": "Capillary",
                "python-modules": ["airflow_provider_capillary.triggers.capillary"],
            }
        ],
        "asset-uris": [
            {
                "schemes": ["capillary"],
                "handler": "airflow_provider_capillary.assets.capillary.sanitize_uri",
                "to_openlineage_converter": "airflow_provider_capillary.assets.capillary.convert_asset_to_openlineage",
            }
        ],
        "transfers": [
            {
                "source-integration-name": "Capillary",
                "target-integration-name": "Object Storage",
                "python-module": "airflow_provider_capillary.transfers.capillary_to_object_storage",
            }
        ],
        "extra-links": ["airflow_provider_capillary.links.capillary.CapillaryObjectLink"],
        # Read since Airflow 3.2. The function is called each time that the `airflow` command starts.
        "cli": ["airflow_provider_capillary.doctor.cli.get_capillary_cli_commands"],
        "connection-types": [
            {
                "connection-type": "capillary",
                "hook-class-name": "airflow_provider_capillary.hooks.capillary.CapillaryHook",
                "hook-name": "Capillary",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema"],
                    "relabeling": {
                        "host": "API host",
                        "login": "Client key",
                        "password": "Client secret",
                    },
                    "placeholders": {
                        "host": "eu.api.capillarytech.com",
                        "port": "443",
                        "login": "key of the API client; empty for bearer",
                        "password": "secret of the API client; for bearer the token",
                    },
                },
                "conn-fields": _connection_fields(),
            }
        ],
    }
