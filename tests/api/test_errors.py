# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import json
import pickle

import pytest

from airflow_provider_capillary.api import errors
from airflow_provider_capillary.api.errors import (
    CapillaryAccessError,
    CapillaryApiError,
    CapillaryAuthError,
    CapillaryConfigurationError,
    CapillaryError,
    CapillaryRateLimitError,
)

PUBLIC = sorted(
    (each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, CapillaryError)),
    key=lambda each: each.__name__,
)
FACTS = {"http_status": 503, "api_code": "4001", "request_id": "req-1", "is_transient": True}


def test_these_are_the_classes_of_errors() -> None:
    assert [each.__name__ for each in PUBLIC] == [
        "CapillaryAccessError",
        "CapillaryApiError",
        "CapillaryAuthError",
        "CapillaryConfigurationError",
        "CapillaryError",
        "CapillaryErrorFileError",
        "CapillaryJobNotFoundError",
        "CapillaryRateLimitError",
        "CapillaryResponseError",
        "CapillaryTransportError",
        "CapillaryUploadError",
    ]


@pytest.mark.parametrize("cls", PUBLIC)
class TestEveryError:
    def test_shows_status_code_and_request_id_behind_its_message(self, cls: type[CapillaryError]) -> None:
        assert str(cls("Down.", **FACTS)) == "Down. (HTTP 503, code 4001, X-CAP-REQUEST-ID req-1)"

    def test_is_its_message_alone_where_nothing_else_is_known(self, cls: type[CapillaryError]) -> None:
        assert str(cls("Down.")) == "Down."

    def test_is_lasting_unless_said_otherwise(self, cls: type[CapillaryError]) -> None:
        assert cls("Down.").is_transient is False

    def test_survives_pickling_with_all_facts(self, cls: type[CapillaryError]) -> None:
        again = pickle.loads(pickle.dumps(cls("Down.", **FACTS)))
        assert type(again) is cls
        assert again.to_dict() == cls("Down.", **FACTS).to_dict()
        assert again.args == ("Down.",)

    def test_survives_copying(self, cls: type[CapillaryError]) -> None:
        error = cls("Down.", **FACTS)
        for again in (copy.copy(error), copy.deepcopy(error)):
            assert (type(again), again.to_dict()) == (cls, error.to_dict())
        assert str(error) == "Down. (HTTP 503, code 4001, X-CAP-REQUEST-ID req-1)"

    def test_travels_as_json(self, cls: type[CapillaryError]) -> None:
        error = cls("Down.", **FACTS)
        value = json.loads(json.dumps(error.to_dict()))
        assert value == {"error": cls.__name__, "message": "Down.", **FACTS}
        again = CapillaryError.from_dict(value)
        assert (type(again), str(again), again.is_transient) == (cls, str(error), True)

    def test_reading_it_leaves_the_value_as_it_was(self, cls: type[CapillaryError]) -> None:
        value = cls("Down.").to_dict()
        CapillaryError.from_dict(value)
        assert value == cls("Down.").to_dict()


def test_an_error_of_an_unknown_class_becomes_the_base_class_with_all_facts() -> None:
    error = CapillaryError.from_dict({"error": "CapillaryMoonError", "message": "Full.", **FACTS})
    assert type(error) is CapillaryError
    assert str(error) == "Full. (HTTP 503, code 4001, X-CAP-REQUEST-ID req-1)"


@pytest.mark.parametrize("name", ["SystemExit", "_rebuild", "", None])
def test_a_name_that_is_no_error_of_ours_builds_nothing_else(name: object) -> None:
    assert type(CapillaryError.from_dict({"error": name, "message": "x"})) is CapillaryError


def test_an_error_that_a_later_version_wrote_down_is_still_read() -> None:
    # Triggerer and worker are not upgraded in the same moment.
    value = {**CapillaryAuthError("Down.", http_status=401).to_dict(), "retry_after": 5}
    error = CapillaryError.from_dict(value)
    assert (type(error), str(error)) == (CapillaryAuthError, "Down. (HTTP 401)")


def test_an_error_without_a_message_says_so() -> None:
    assert str(CapillaryError.from_dict({})) == "unknown error"


def test_every_error_can_be_caught_as_a_capillary_error() -> None:
    assert all(issubclass(each, CapillaryError) for each in PUBLIC)


def test_errors_that_capillary_answered_with_can_be_caught_together() -> None:
    assert {each for each in PUBLIC if issubclass(each, CapillaryApiError)} == {
        CapillaryApiError,
        CapillaryRateLimitError,
        CapillaryAuthError,
        CapillaryAccessError,
    }


def test_a_wrong_setting_is_a_value_error_too() -> None:
    assert issubclass(CapillaryConfigurationError, ValueError)
