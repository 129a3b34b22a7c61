# SPDX-License-Identifier: Apache-2.0
"""Facts of the doctor's report that no local server can have."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_capillary.api.diagnosis import Section, TlsFacts, examine_host, examine_token, kind_of_host
from airflow_provider_capillary.api.job_facts import describe_jobs
from airflow_provider_capillary.api.public_words import PublicWords
from airflow_provider_capillary.api.settings import ConnectionSettings

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
WORDS = PublicWords([])
SETTINGS = ConnectionSettings(
    conn_id="account",
    scheme="https",
    host="eu.api.capillarytech.com",
    port=443,
    client_key="key",
    client_secret="secret",
    auth_url="https://eu.api.capillarytech.com/v3/oauth/token/generate",
)


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("eu.api.capillarytech.com", "documented API cluster"),
        ("apac2.api.capillarytech.com", "documented API cluster"),
        ("tata.intouch.capillarytech.com", "documented intouch cluster"),
        ("acme.capillarytech.com", "other host of Capillary"),
        ("eu.api.capillarytech.com.example.com", "other host"),
        ("capillary.acme.example", "other host"),
        ("127.0.0.1", "this machine"),
        ("localhost", "this machine"),
    ],
)
def test_a_host_is_shown_by_its_kind(host: str, kind: str) -> None:
    assert kind_of_host(host) == kind


def host_section(settings: ConnectionSettings = SETTINGS, **changes: Any) -> Section:
    facts: dict[str, Any] = {"addresses": 2, "proxy_url": None, "proxy_source": None, "tls": None}
    return examine_host(settings, now=NOW, **(facts | changes))


def test_the_issuer_is_public_where_the_authority_is() -> None:
    tls = TlsFacts(
        version="TLSv1.3", issuer="Google Trust Services", expires_at=datetime(2027, 1, 1, tzinfo=UTC), is_public=True
    )

    section = host_section(tls=tls)

    assert section.facts["tls"] == {
        "version": "TLSv1.3",
        "issuer": "Google Trust Services",
        "trusted_by": "public authorities",
        "certificate_ends_in_days": 36,
    }
    assert section.notes["certificate"] == "issued by Google Trust Services, valid until 2027-01-01"
    assert host_section(tls=replace(tls, is_public=False)).facts["tls"]["issuer"] is None


def test_a_name_that_only_the_proxy_resolves_is_no_failure() -> None:
    proxy = {"proxy_url": "http://user:password@proxy.acme.example:3128", "proxy_source": "environment variable X"}

    section = host_section(addresses=None, **proxy)

    assert (section.result, section.facts["resolves"]) == ("ok", False)
    assert section.notes["proxy address"] == "http://proxy.acme.example:3128"
    assert "acme" not in str(section.facts)
    assert "password" not in str(section)
    assert host_section(addresses=None).result == "failed"


def test_a_connection_without_token_calls_has_no_authentication_host() -> None:
    assert host_section().facts["authentication_host"] == "the API host"
    assert host_section(replace(SETTINGS, auth_url="")).facts["authentication_host"] is None
    other = replace(SETTINGS, auth_url="https://login.acme.example/token")
    assert host_section(other).facts["authentication_host"] == "other host"


def test_a_ready_token_is_described_by_its_claims_alone() -> None:
    claims = {"exp": NOW.timestamp() + 3600, "iat": NOW.timestamp() - 3600, "source": "WEBAPP", "orgID": 100458}
    token = f"x.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.y"

    section = examine_token([], token, None, words=PublicWords([claims]), now=NOW)

    assert section == Section(
        result="ok",
        facts={
            "is_jwt": True,
            "claims": ["exp", "iat", "orgID", "source"],
            "lifetime_seconds": 7200,
            "lifetime_in_claims_seconds": 7200,
            "ends_in_seconds": 3600,
        },
    )


@pytest.mark.parametrize(
    ("millis", "offsets", "not_at_a_midnight"),
    [
        ("1603132200000", ["+05:30"], 0),  # of a sample
        (1603170000000, ["-05:00"], 0),
        ("1603152000000", ["+00:00"], 0),
        ("1603195200000", ["+12:00", "-12:00"], 0),
        ("1603183613031", [], 1),
        (None, [], 1),
        ("2020-10-20", [], 1),
    ],
)
def test_the_zone_of_midnights_is_worked_out(millis: object, offsets: list[str], not_at_a_midnight: int) -> None:
    job = {"jobId": 1, "uploadRedeemedCouponStatus": "COMPLETED", "createdOn": millis}
    payload = {"success": True, "status": 200, "result": {"redeemUploadJobStatuses": [job]}}

    facts = describe_jobs(payload, timezone="UTC", words=WORDS)

    assert sorted(facts["midnight_at_utc_offsets"]) == offsets
    assert facts["finished_jobs_not_at_a_midnight"] == not_at_a_midnight


@pytest.mark.parametrize("jobs", [None, "text", [1, None, "x"], {"a": 1}], ids=repr)
def test_jobs_of_another_form_are_described_as_far_as_they_go(jobs: object) -> None:
    facts = describe_jobs({"result": {"redeemUploadJobStatuses": jobs}}, timezone="UTC", words=WORDS)

    assert facts["status_words"] == {}
    assert facts["missing_fields"] == ["result.couponSeriesId", "result.orgId", "status", "success"]
