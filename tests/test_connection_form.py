# SPDX-License-Identifier: Apache-2.0
"""The connection form as this Airflow makes it: from provider info since 3.2, from the hook before."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_capillary.get_provider_info import get_provider_info
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from tests.airflow_compat import FORM_IS_IN_PROVIDER_INFO, IS_AIRFLOW_2

CONNECTION_TYPE: Any = get_provider_info()["connection-types"][0]  # type: ignore[index]
FIELDS: dict[str, Any] = CONNECTION_TYPE["conn-fields"]
#: The forms before 3.2 would write an object back in Python's notation.
SHOWN = {name for name in FIELDS if FORM_IS_IN_PROVIDER_INFO or name != "headers"}
RELABELED = CONNECTION_TYPE["ui-field-behaviour"]["relabeling"]


@pytest.fixture(scope="module")
def form() -> Any:
    """What Airflow's UI reads of the connection type."""
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

    (found,) = (hook for hook in HookMetaService.hook_meta_data() if hook.connection_type == "capillary")
    return found


@pytest.fixture(scope="module")
def web(airflow_database: None) -> Any:
    """A client of Airflow 2's web server that is logged in."""
    from airflow.www.app import create_app

    app = create_app(testing=True)
    app.config["WTF_CSRF_ENABLED"] = False
    with app.app_context():
        security = app.appbuilder.sm
        security.add_user("ada", "Ada", "L", "ada@example.com", security.find_role("Admin"), password="ada")
    client = app.test_client()
    client.post("/login/", data={"username": "ada", "password": "ada"})
    return client


def _has_enum(field: dict[str, Any]) -> bool:
    return field["schema"].get("enum") is not None


@pytest.mark.skipif(IS_AIRFLOW_2, reason="Airflow 2 has no API for the form")
class TestForm:
    def test_it_has_every_extra_field_with_its_label_and_explanation(self, form: Any) -> None:
        shown = {
            name: (field["schema"].get("title"), field.get("description") or field["schema"].get("description"))
            for name, field in form.extra_fields.items()
        }
        assert shown == {name: (FIELDS[name]["label"], FIELDS[name]["description"]) for name in SHOWN}

    def test_the_authentication_types_are_a_choice(self, form: Any) -> None:
        choices = {name: field["schema"]["enum"] for name, field in form.extra_fields.items() if _has_enum(field)}
        assert choices == {"auth_type": ["oauth", "bearer"]}

    def test_no_extra_field_is_required(self, form: Any) -> None:
        assert {name for name, field in form.extra_fields.items() if "null" not in field["schema"]["type"]} == set()

    def test_the_standard_fields_are_called_as_capillary_calls_them(self, form: Any) -> None:
        assert {name: getattr(form.standard_fields, name).title for name in RELABELED} == RELABELED
        assert form.standard_fields.url_schema.hidden is True


@pytest.mark.skipif(not IS_AIRFLOW_2, reason="Airflow 3 makes the form in the browser")
class TestFormOfAirflow2:
    def test_it_has_every_extra_field_with_its_label_and_explanation(self, web: Any) -> None:
        page = web.get("/connection/add").text
        for name in SHOWN:
            assert f'name="extra__capillary__{name}"' in page
            assert FIELDS[name]["label"] in page
            assert FIELDS[name]["description"].partition("{")[0].partition("'")[0] in page

    def test_what_is_saved_is_shown_again_and_can_be_used(self, web: Any) -> None:
        given = {
            "extra__capillary__cluster_timezone": "Asia/Kolkata",
            "extra__capillary__requests_per_minute": "300",
            "extra__capillary__timeout_seconds": "2.5",
            "extra__capillary__allow_http": "y",
            "extra__capillary__verify": "",
            "extra__capillary__auth_type": "oauth",
            "extra": '{"headers": {"X-CAP-API-AUTH-ORG-ID": "1234"}}',
        }
        standard = {"conn_id": "saved", "conn_type": "capillary", "host": "capillary.test", "login": "key"}
        answer = web.post("/connection/add", data=standard | {"password": "client-secret"} | given)
        assert answer.status_code == 302, answer.text

        settings = CapillaryHook("saved").settings
        assert settings.cluster_timezone == "Asia/Kolkata"
        assert settings.requests_per_minute == 300
        assert settings.timeout_seconds == 2.5
        assert settings.allow_http is True
        assert settings.verify is True
        assert settings.headers == {"X-CAP-API-AUTH-ORG-ID": "1234"}

        from airflow.models.connection import Connection
        from airflow.utils.session import create_session

        with create_session() as session:
            stored = session.query(Connection).filter_by(conn_id="saved").one()
            extra, number = stored.extra, stored.id
        assert json.loads(extra)["headers"] == {"X-CAP-API-AUTH-ORG-ID": "1234"}
        page = web.get(f"/connection/edit/{number}").text
        assert 'value="Asia/Kolkata"' in page
        assert "client-secret" not in page

    def test_an_unknown_authentication_type_is_refused_with_the_choices(self, web: Any) -> None:
        given = {"conn_id": "refused", "conn_type": "capillary", "host": "capillary.test", "login": "key"}
        answer = web.post("/connection/add", data=given | {"extra__capillary__auth_type": "basic"})
        assert answer.status_code == 200
        assert "oauth, bearer" in answer.text


@pytest.mark.skipif(FORM_IS_IN_PROVIDER_INFO, reason="this Airflow does not ask the hook")
def test_airflow_asks_the_hook_for_the_form() -> None:
    from airflow.providers_manager import ProvidersManager

    behaviour = ProvidersManager().field_behaviours["capillary"]
    assert behaviour["relabeling"] == RELABELED
    assert behaviour["hidden_fields"] == ["schema"]
    assert behaviour["placeholders"]["host"] == "eu.api.capillarytech.com"
