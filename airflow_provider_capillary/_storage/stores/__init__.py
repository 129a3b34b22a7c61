# SPDX-License-Identifier: Apache-2.0
"""How each kind of store keeps an object out of sight until it is whole."""
