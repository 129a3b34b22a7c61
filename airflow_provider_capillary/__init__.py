# SPDX-License-Identifier: Apache-2.0
"""Apache Airflow provider for Capillary, a loyalty and coupon platform.

Airflow imports this module at discovery, in every process: it must stay free of imports.
"""

#: The one home of the version; the build reads it from here.
__version__ = "0.1.0"
