"""What is believed of prompts whose end nobody sees: those of answers that come whole."""

import random

import pytest

from llmproxy.core.backend import Backend, BackendSpec
from llmproxy.core.ports import Moment
from llmproxy.core.prompt import Prompt
from llmproxy.core.request import Request
from llmproxy.policy.routing.expected_cost import ExpectedCost, ExpectedCostOptions

R0 = 1000.0


@pytest.fixture
def made():
    return ExpectedCost(ExpectedCostOptions(prefill_tokens_per_s=R0), random.Random(1))


@pytest.fixture
def one():
    return Backend(BackendSpec(id="one", url="http://127.0.0.1:1"))


def place(made, backend, tokens, now, **fields):
    sent = Request(prompt=lambda: Prompt(tokens * 4), **fields)
    made.pick((backend,), sent, now)
    backend.load.enter()
    made.observe(Moment.SENT, backend, sent, now)
    return sent


def stream(made, backend, tokens, now):
    return place(made, backend, tokens, now, stream=True)


def told(made, backend, now):
    [terms] = made.explain((backend,), Request(prompt=lambda: Prompt(4)), now)
    return terms


def pending(made, backend, now):
    return told(made, backend, now)["pending_tokens"]


def speed(made, backend, now):
    return told(made, backend, now)["prefill_tokens_per_s"]


def test_a_whole_answer_waits_for_twice_as_long_as_its_prompt_should_take(made, one):
    place(made, one, 4000, 10.0)
    assert pending(made, one, 10.0) == 4000
    assert pending(made, one, 13.0) == pytest.approx(2500)
    assert made.backlog_s(one, 13.0) == pytest.approx(2.5)
    assert pending(made, one, 17.9) > 0.0
    assert pending(made, one, 18.1) == 0.0


def test_they_are_computed_one_after_the_other(made, one):
    place(made, one, 2000, 0.0)
    place(made, one, 1000, 2.0)
    assert pending(made, one, 2.0) == pytest.approx(2000)
    assert pending(made, one, 5.0) == pytest.approx(500)
    place(made, one, 1000, 14.0)
    assert pending(made, one, 15.0) == pytest.approx(500)


def test_asking_often_changes_nothing(made, one):
    place(made, one, 4000, 0.0)
    other = ExpectedCost(ExpectedCostOptions(prefill_tokens_per_s=R0), random.Random(1))
    place(other, one, 4000, 0.0)
    for step in range(1, 30):
        pending(made, one, step / 10)
        # Nor does asking about what is past.
        pending(made, one, 0.0)
    assert pending(made, one, 3.0) == pytest.approx(pending(other, one, 3.0))


@pytest.mark.parametrize("moment", [Moment.FINISHED, Moment.FAILED])
def test_its_end_teaches_nothing_of_the_speed(made, one, moment):
    sent = place(made, one, 4000, 0.0)
    made.observe(Moment.FIRST_TOKEN, one, sent, 60.0)
    made.observe(moment, one, sent, 60.0)
    assert speed(made, one, 60.0) == R0
    assert made.seen_tokens_per_s(one) is None
    assert pending(made, one, 60.0) == 0.0


def test_it_waits_as_long_as_a_stream_before_it_does(made, one):
    first = stream(made, one, 3000, 0.0)
    place(made, one, 2000, 0.0)
    assert pending(made, one, 30.0) == 5000
    made.observe(Moment.FIRST_TOKEN, one, first, 30.0)
    assert pending(made, one, 30.0) == 2000
    after = 2000 - 0.5 * speed(made, one, 30.0) / 2
    assert pending(made, one, 30.5) == pytest.approx(after)


def test_a_first_token_shows_that_what_came_before_is_computed_and_counts_it(made, one):
    place(made, one, 2500, 0.0)
    first = stream(made, one, 1500, 1.0)
    later = place(made, one, 400, 2.0)
    # Of the first one 2,000 are thought to be left when the stream comes; at R it would be 1,500, and that is counted.
    assert pending(made, one, 4.0) == pytest.approx(2000 + 1500 + 400)
    made.observe(Moment.FIRST_TOKEN, one, first, 4.5)
    assert pending(made, one, 4.5) == pytest.approx(400)
    assert speed(made, one, 4.5) == pytest.approx((1500 + 1500 + 3 * R0) / (3.5 + 3.0), rel=1e-3)
    made.observe(Moment.FINISHED, one, later, 4.6)
    assert pending(made, one, 4.6) == 0.0


def test_an_answer_that_came_was_computed_and_so_were_those_before(made, one):
    first = stream(made, one, 1000, 0.0)
    place(made, one, 3000, 0.0)
    second = place(made, one, 2000, 0.0)
    place(made, one, 500, 0.0)
    made.observe(Moment.FINISHED, one, second, 5.0)
    assert pending(made, one, 5.0) == 1500
    # It was done while the stream waited, and counts when that time does.
    assert speed(made, one, 5.0) < R0
    made.observe(Moment.FIRST_TOKEN, one, first, 6.0)
    assert speed(made, one, 6.0) == pytest.approx((6000 + 3 * R0) / (6.0 + 3.0), rel=1e-3)


def test_one_that_failed_goes_alone(made, one):
    stream(made, one, 1000, 0.0)
    place(made, one, 3000, 0.0)
    second = place(made, one, 2000, 0.0)
    made.observe(Moment.FAILED, one, second, 1.0)
    assert pending(made, one, 1.0) == 4000


def test_answers_of_nothing_but_prompts_teach_as_streams_do(made, one):
    sent = place(made, one, 6000, 0.0, path="/v1/embeddings")
    assert pending(made, one, 3.0) == 6000
    made.observe(Moment.FIRST_TOKEN, one, sent, 3.0)
    assert speed(made, one, 3.0) == pytest.approx((6000 + 3 * R0) / 6.0)


def test_forgotten_while_they_are_under_way(made, one):
    sent = [stream(made, one, 4000, 0.0), place(made, one, 4000, 0.0)]
    made.forget(one)
    # It comes back, a stranger, before they end.
    again = stream(made, one, 1000, 0.1)
    for each in sent:
        made.observe(Moment.FIRST_TOKEN, one, each, 0.2)
        made.observe(Moment.FINISHED, one, each, 0.2)
    assert pending(made, one, 5.0) == 1000
    made.observe(Moment.FIRST_TOKEN, one, again, 5.1)
    assert pending(made, one, 5.1) == 0.0


def test_ten_thousand_leave_nothing(made, one):
    dice, now, live = random.Random(3), 0.0, []
    for _ in range(10_000):
        now += dice.expovariate(100)
        live.append(place(made, one, dice.randint(1, 40), now, stream=dice.random() < 0.5))
        if len(live) > 30:
            ended = live.pop(dice.randrange(len(live)))
            one.load.leave()
            made.observe(dice.choice(list(Moment)[1:]), one, ended, now)
            made.observe(Moment.FINISHED, one, ended, now)
    for ended in live:
        made.observe(Moment.FAILED, one, ended, now)
    assert pending(made, one, now) == 0.0
    assert not made._draining
    book = made._books[one]
    assert (book.awaiting, len(book.wholes)) == (0, 0)
