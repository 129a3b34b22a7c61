# SPDX-License-Identifier: Apache-2.0
"""The hooks, over real HTTP."""
