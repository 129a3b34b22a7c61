# SPDX-License-Identifier: Apache-2.0
"""Writes objects that appear whole or not at all."""
