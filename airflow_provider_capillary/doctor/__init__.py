# SPDX-License-Identifier: Apache-2.0
"""Examines a connection, and reports which answers Capillary really gives. It only reads.

From a shell::

    python -m airflow_provider_capillary.doctor CONN_ID SERIES [--json]
"""
