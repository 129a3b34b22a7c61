# SPDX-License-Identifier: Apache-2.0
"""Assets, for DAGs that start when something happens in Capillary."""
