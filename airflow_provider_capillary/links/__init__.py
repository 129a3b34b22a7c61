# SPDX-License-Identifier: Apache-2.0
"""Links of tasks in Airflow's UI."""
