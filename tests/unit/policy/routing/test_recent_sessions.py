"""Which backends have sessions that live: counted, moved, expired, forgotten, and never without bound."""

import random

import pytest

from llmproxy.core.backend import Backend, BackendSpec
from llmproxy.core.ports import Moment, SessionKeeping
from llmproxy.core.prompt import BLOCK_BYTES, Prompt
from llmproxy.core.request import Request
from llmproxy.pipeline.response_ids import ASKED_FOR_S, ResponseIds
from llmproxy.policy.routing.recent_sessions import LIVES_S, RecentSessions
from llmproxy.policy.routing.registry import build

A, B = (Backend(BackendSpec(id, "http://h")) for id in "ab")


def test_a_session_is_where_it_was_sent_last() -> None:
    recent = RecentSessions()
    recent.sent(1, A, 0.0)
    recent.sent(2, A, 0.0)
    assert recent.live(0.0) == {"a": 2}
    recent.sent(2, B, 1.0)
    assert recent.live(1.0) == {"a": 1, "b": 1}
    recent.sent(1, B, 2.0)
    assert recent.live(2.0) == {"b": 2}


def test_silent_ones_are_over() -> None:
    recent = RecentSessions()
    recent.sent(1, A, 0.0)
    recent.sent(2, B, 0.0)
    recent.sent(1, A, 100.0)
    assert recent.live(LIVES_S + 1.0) == {"a": 1}
    assert recent.live(LIVES_S + 101.0) == {}


def test_of_too_many_the_oldest_are_forgotten() -> None:
    recent = RecentSessions(kept_max=3)
    for session in range(5):
        recent.sent(session, A if session < 2 else B, 0.0)
    assert recent.live(0.0) == {"b": 3}


def test_a_backend_that_left_has_none() -> None:
    recent = RecentSessions()
    recent.sent(1, A, 0.0)
    recent.forget(A)
    assert recent.live(0.0) == {}
    recent.sent(1, B, 1.0)
    assert recent.live(1.0) == {"b": 1}
    assert recent.live(LIVES_S + 2.0) == {}


def test_two_of_one_id_are_added_up() -> None:
    recent = RecentSessions()
    recent.sent(1, A, 0.0)
    recent.sent(2, A, 0.0)
    recent.sent(3, Backend(A.spec), 0.0)
    assert recent.live(0.0) == {"a": 3}


def test_of_two_attempts_the_session_is_where_the_answer_comes_from() -> None:
    policy = build("session_affinity", {}, random.Random(0))
    assert isinstance(policy, SessionKeeping)
    request = Request(headers=[(b"X-Session-ID", b"one")])
    policy.pick([A, B], request, 0.0)
    policy.observe(Moment.SENT, A, request, 0.0)
    policy.observe(Moment.SENT, B, request, 1.0)
    policy.observe(Moment.FIRST_TOKEN, A, request, 2.0)
    policy.observe(Moment.FAILED, B, request, 2.0)
    assert policy.sessions(2.0) == {"a": 1}
    policy.observe(Moment.SENT, B, request, 3.0)
    policy.observe(Moment.FIRST_TOKEN, B, request, 4.0)
    policy.observe(Moment.FAILED, A, request, 4.0)
    assert policy.sessions(4.0) == {"b": 1}


def test_session_affinity_counts_what_was_sent_and_not_what_was_only_chosen() -> None:
    policy = build("session_affinity", {}, random.Random(0))
    assert isinstance(policy, SessionKeeping)
    request = Request(headers=[(b"X-Session-ID", b"one")])
    policy.pick([A, B], request, 0.0)
    assert policy.sessions(0.0) == {}
    policy.observe(Moment.SENT, A, request, 0.0)
    policy.observe(Moment.FINISHED, A, request, 1.0)
    assert policy.sessions(1.0) == {"a": 1}
    plain = Request()
    policy.pick([A, B], plain, 0.0)
    policy.observe(Moment.SENT, B, plain, 0.0)
    assert policy.sessions(1.0) == {"a": 1}
    policy.forget(A)
    assert policy.sessions(1.0) == {}


def prompt(*blocks: int) -> Request:
    return Request(prompt=lambda: Prompt(len(blocks) * BLOCK_BYTES, blocks))


@pytest.mark.parametrize("name", ["expected_cost", "prefix_affinity"])
def test_by_prompts_a_session_is_what_goes_on_from_an_earlier_end(name: str) -> None:
    policy = build(name, {}, random.Random(0))
    assert isinstance(policy, SessionKeeping)

    def ask(request: Request, backends: list[Backend], now: float) -> None:
        backend = policy.pick(backends, request, now)
        policy.observe(Moment.SENT, backend, request, now)
        policy.observe(Moment.FINISHED, backend, request, now)

    ask(prompt(), [A], 0.0)
    assert policy.sessions(0.0) == {}, "a prompt too short for the cache has nothing to come back to"
    ask(prompt(1, 2, 3), [A], 1.0)
    ask(prompt(1, 2, 3, 4, 5), [A, B], 2.0)
    ask(prompt(1, 2, 3, 4, 5), [A, B], 3.0)
    assert policy.sessions(3.0) == {"a": 1}, "three turns of one"
    ask(prompt(1, 2, 6, 7), [A], 4.0)
    assert policy.sessions(4.0) == {"a": 2}, "another with the same system prompt"
    ask(prompt(1, 2, 6, 7, 8), [B], 5.0)
    assert policy.sessions(5.0) == {"a": 2, "b": 1}, "sent elsewhere: what it had there is there still"
    assert policy.sessions(3.0 + LIVES_S + 0.5) == {"a": 1, "b": 1}
    policy.forget(A)
    assert policy.sessions(3.0 + LIVES_S + 0.5) == {"b": 1}


def test_a_turn_that_is_much_longer_than_all_before_it_is_the_same_session() -> None:
    policy = build("prefix_affinity", {"min_match": 0.5}, random.Random(0))
    assert isinstance(policy, SessionKeeping)
    for now, request in enumerate([prompt(1, 2), prompt(1, 2, 3, 4, 5, 6, 7)]):
        policy.pick([A], request, float(now))
        policy.observe(Moment.SENT, A, request, float(now))
    assert policy.sessions(1.0) == {"a": 1}


def test_what_is_over_makes_room_without_being_asked_for() -> None:
    recent = RecentSessions()
    for session in range(100):
        recent.sent(session, A, 0.0)
    for session in range(100, 150):
        recent.sent(session, B, LIVES_S + 1.0)
    assert len(recent) == 50


def test_who_made_answers_that_may_be_asked_for() -> None:
    makers = ResponseIds()
    makers.remember(b"r1", A, 0.0)
    makers.remember(b"r2", B, 5.0)
    assert set(makers.makers_of_late(6.0)) == {"a", "b"}
    assert set(makers.makers_of_late(ASKED_FOR_S + 1.0)) == {"b"}
    assert makers.maker(b"r1") is A, "which is still known to whoever asks"
