# SPDX-License-Identifier: Apache-2.0
"""What flows report for metrics."""

from __future__ import annotations

import pytest

from airflow_provider_capillary.api.flow import Measure, Sleep
from airflow_provider_capillary.api.retry import HttpRetry
from tests.api.flows import Client, coupon, jobs_reply, reply, token_reply

QUICK = HttpRetry(max_attempts=2, base_seconds=0.0)


def test_a_token_fetch_counts_once_however_often_it_is_tried_again() -> None:
    talk = Client(retry=QUICK).get_token(reply(b"", 503), token_reply())

    assert talk.facts == [Measure("token_fetches")]


def test_a_kept_token_counts_nothing() -> None:
    talk = Client().with_token().get_jobs(jobs_reply())

    assert talk.facts == []


@pytest.mark.parametrize("refusal", [reply(b"", 429), reply(coupon(429))], ids=["by its status", "in its body"])
def test_each_refusal_as_too_many_requests_counts(refusal: object) -> None:
    talk = Client(retry=QUICK).with_token().get_jobs(refusal, refusal)

    assert talk.facts[0] == Measure("rate_limited")
    assert [fact.metric for fact in talk.facts].count("rate_limited") == 2


def test_the_time_that_a_request_waits_for_the_limit_is_measured() -> None:
    client = Client(requests_per_minute=10).with_token()
    client.get_jobs(jobs_reply())

    talk = client.get_jobs(jobs_reply())

    (pause,) = [step.seconds for step in talk.steps if isinstance(step, Sleep)]
    assert pause == 6.0
    assert talk.facts == [Measure("request_delay", seconds=pause)]
