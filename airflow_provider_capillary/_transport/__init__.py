# SPDX-License-Identifier: Apache-2.0
"""Carries the protocol of `api` out over sockets: ``requests`` on a worker, ``httpcore`` in the triggerer."""
