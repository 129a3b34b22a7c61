# SPDX-License-Identifier: Apache-2.0
"""Polls each coupon series once for all waits and watchers of a triggerer."""
