# SPDX-License-Identifier: Apache-2.0
"""One module for each kind of store: how it hides an object until it is complete."""
