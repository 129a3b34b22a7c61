# SPDX-License-Identifier: Apache-2.0
"""Sensors for Capillary."""
