# SPDX-License-Identifier: Apache-2.0
"""The Capillary protocol as pure code: no Airflow, no socket, no sleep, no clock of its own."""
