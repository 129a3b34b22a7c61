# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capillary.api.errors import CapillaryAuthError
from airflow_provider_capillary.api.tokens import Token, TokenCache, TokenRefresh, make_token
from tests.api.flows import Clock, examples


def settled(cache: TokenCache, token: Token) -> Token:
    refresh, is_ours = cache.acquire()
    assert is_ours
    assert isinstance(refresh, TokenRefresh)
    cache.complete(refresh, token)
    return token


@pytest.mark.parametrize(
    ("ttl", "used_for"),
    [(300, 240), (600, 540), (3600, 3540), (2_592_000, 2_591_940), (100, 80), (10, 8), (1, 0.8), (299, 239.2)],
)
def test_a_token_is_given_up_sixty_seconds_or_a_fifth_of_its_life_before_its_end(ttl: float, used_for: float) -> None:
    assert make_token("t", ttl, asked_at=50.0).use_until == pytest.approx(50.0 + used_for)


@pytest.mark.parametrize("ttl", [None, 0, -1, -3600])
def test_a_life_that_is_missing_or_not_positive_counts_as_five_minutes(ttl: float | None) -> None:
    assert make_token("t", ttl, asked_at=50.0).use_until == 290.0


@examples(60)
@given(st.floats(0.001, 30 * 86_400), st.floats(0, 10**9))
def test_a_token_is_used_for_a_while_and_never_to_its_end(ttl: float, asked_at: float) -> None:
    used_for = make_token("t", ttl, asked_at=asked_at).use_until - asked_at
    assert 0.79 * ttl - 1e-6 <= used_for <= ttl


def test_a_token_is_used_until_its_time_and_not_at_it() -> None:
    clock = Clock(0.0)
    cache = TokenCache(monotonic=clock)
    token = settled(cache, make_token("t", 300, asked_at=0.0))
    clock.now = 239.9
    assert cache.acquire() == (token, False)
    clock.now = 240.0
    claimed, is_ours = cache.acquire()
    assert isinstance(claimed, TokenRefresh)
    assert is_ours


def test_one_fetch_at_a_time_is_given_out() -> None:
    cache = TokenCache(monotonic=Clock())
    first, first_is_ours = cache.acquire()
    second, second_is_ours = cache.acquire()
    assert (first_is_ours, second_is_ours) == (True, False)
    assert second is first


def test_one_of_many_threads_gets_the_fetch() -> None:
    cache = TokenCache(monotonic=Clock())
    barrier = threading.Barrier(16)
    claims: list[tuple[Token | TokenRefresh, bool]] = []

    def acquire() -> None:
        barrier.wait()
        claims.append(cache.acquire())

    threads = [threading.Thread(target=acquire) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(is_ours for _, is_ours in claims) == [False] * 15 + [True]
    assert len({id(claimed) for claimed, _ in claims}) == 1


@pytest.mark.parametrize("result", [None, CapillaryAuthError("no")])
def test_a_fetch_that_brought_no_token_leaves_the_next_one_free(result: CapillaryAuthError | None) -> None:
    cache = TokenCache(monotonic=Clock())
    refresh, _ = cache.acquire()
    assert isinstance(refresh, TokenRefresh)
    cache.complete(refresh, result)
    assert refresh.future.result(0) is result
    claimed, is_ours = cache.acquire()
    assert claimed is not refresh
    assert is_ours


def test_a_waiter_cannot_cancel_the_fetch_for_the_others() -> None:
    cache = TokenCache(monotonic=Clock())
    refresh, _ = cache.acquire()
    assert isinstance(refresh, TokenRefresh)
    assert refresh.future.cancel() is False
    token = make_token("t", 300, asked_at=1_000.0)
    cache.complete(refresh, token)
    assert refresh.future.result(0) is token


def test_a_refused_token_is_forgotten() -> None:
    cache = TokenCache(monotonic=Clock())
    token = settled(cache, make_token("t", 300, asked_at=1_000.0))
    cache.invalidate(token)
    assert cache.acquire()[1] is True


def test_a_late_refusal_of_the_old_token_does_not_cost_the_new_one() -> None:
    cache = TokenCache(monotonic=Clock())
    old = settled(cache, make_token("old", 300, asked_at=1_000.0))
    cache.invalidate(old)
    new = settled(cache, make_token("new", 300, asked_at=1_000.0))
    cache.invalidate(old)
    assert cache.acquire() == (new, False)
