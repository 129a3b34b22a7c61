# SPDX-License-Identifier: Apache-2.0
"""Links of tasks in Airflow's UI to the objects that they read or write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_capillary._airflow_compat import BaseOperatorLink

if TYPE_CHECKING:
    from airflow_provider_capillary._airflow_compat import BaseOperator, Context
    from airflow_provider_capillary._storage.stores.base import ObjectLocation

_XCOM_KEY = "capillary_object_link"


class CapillaryObjectLink(BaseOperatorLink):
    """Link to the object of a task in the console of its store.

    A transfer links to the object that it wrote, an upload to the file that it read. There are links for Amazon S3 and
    Google Cloud Storage. There is none for local files, for Azure, whose portal needs the id of the storage account,
    and for stores with an endpoint of their own, such as MinIO.
    """

    name = "Object in its store"

    @property
    def xcom_key(self) -> str:
        """Key of the XCom with the URL. Airflow 3 stores its result there again."""
        return _XCOM_KEY

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the URL.

        :param operator: The operator.
        :param ti_key: Names the task instance.
        :return: The URL, empty if the object has no address in a console.
        """
        from airflow_provider_capillary._airflow_compat import XCom

        return XCom.get_value(ti_key=ti_key, key=_XCOM_KEY) or ""


def publish_object_link(context: Context, location: ObjectLocation) -> None:
    """Push the URL of an object to XCom, if it has one. Never raises: no task fails for a link.

    :param context: Airflow's context.
    :param location: The object.
    """
    from airflow_provider_capillary._storage.console import console_url

    url = console_url(location)
    if url is not None:
        context["ti"].xcom_push(key=_XCOM_KEY, value=url)
