# SPDX-License-Identifier: Apache-2.0
"""The connection form for Airflow before 3.2, built from the description that newer releases read."""

from __future__ import annotations

from typing import Any

from airflow_provider_capillary.get_provider_info import get_provider_info


def form_widgets() -> dict[str, Any]:
    """Return the extra fields of the form as WTForms fields, by their key in extra.

    Needs ``wtforms`` and ``flask_appbuilder``, which come with Airflow 2.11 and with the FAB provider. Airflow 3.1
    replaces them by stand-ins that support only these three kinds of field, and make a dropdown of ``any_of``. A field
    for an object is omitted, because these forms would save it in Python's notation. Users edit it in *Extra*.
    """
    from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
    from wtforms import BooleanField, IntegerField, StringField
    from wtforms.validators import Optional, any_of

    widgets = {}
    for key, field in _connection_type()["conn-fields"].items():
        kind = field["schema"]["type"][0]
        text = {"label": field["label"], "description": field["description"]}
        if kind == "boolean":
            widgets[key] = BooleanField(**text)
        elif kind == "integer":
            widgets[key] = IntegerField(**text, widget=BS3TextFieldWidget(), validators=[Optional()])
        elif kind != "object":
            choices = field["schema"].get("enum")
            validators = [Optional()] if choices is None else [Optional(), any_of(choices)]
            widgets[key] = StringField(**text, widget=BS3TextFieldWidget(), validators=validators)
    return widgets


def field_behaviour() -> dict[str, Any]:
    """Return hidden fields, labels and placeholders of the standard fields."""
    behaviour = _connection_type()["ui-field-behaviour"]
    return {name.replace("-", "_"): value for name, value in behaviour.items()}


def _connection_type() -> Any:
    info: Any = get_provider_info()
    return info["connection-types"][0]
