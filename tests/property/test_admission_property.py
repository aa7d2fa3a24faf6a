"""The queue under any sequence of events: nobody is lost, nobody served twice, and service is shared out fairly."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.policy.admission.queue import Bounds, Queue
from llmproxy.policy.admission.ticket import Band, Reason, Ticket

EVENTS = st.lists(
    st.tuples(st.sampled_from(["enter", "leave", "serve", "settle", "demote", "end", "pass"]), st.integers(0, 11)),
    max_size=150,
)


@given(st.integers(0, 8), st.integers(1, 8), st.integers(1, 20), EVENTS)
def test_the_queue_keeps_its_books(waiting_max, tenant_max, wait_s, events):
    queue = Queue(Bounds(waiting_max=waiting_max, tenant_waiting_max=tenant_max, wait_s=float(wait_s)))
    tickets = [
        Ticket(number, tenant=f"t{number % 4}", band=Band(number % 3), bytes=number, tokens=float(number * 10),
               deadline=float(number % 5 + 5), lane=number % 2)
        for number in range(12)
    ]  # fmt: skip
    waiting, open_ = set(), set()
    now = 0.0
    for event, number in events:
        one = tickets[number]
        if event == "enter" and number not in open_:
            refused = queue.enter(one, now, one.deadline)
            if refused is Reason.FULL and (other := queue.gives_way(one)) is not None:
                places = [(tickets[name].tenant, tickets[name].band) for name in waiting]
                lines = [places.count((who.tenant, who.band)) for who in (other, one)]
                assert other.owner in waiting
                assert other.band > one.band or (other.band == one.band and lines[0] > lines[1])
                queue.leave(other)
                waiting.discard(other.owner)
                refused = queue.enter(one, now, one.deadline)
                assert refused is None
            if number not in waiting and refused is None:
                waiting.add(number)
            assert len(waiting) <= max(waiting_max, 0)
        elif event == "leave":
            queue.leave(one)
            waiting.discard(number)
        elif event == "serve":
            head = queue.head()
            assert (head is None) == (not waiting)
            if head is not None:
                assert queue.serve(head, now)
                waiting.remove(head.owner)
                open_.add(head.owner)
        elif event == "settle" and number in open_:
            queue.settle(one, number, number * 7)
            open_.discard(number)
        elif event == "demote":
            queue.demote(one, now)
        elif event == "end":
            now += number
            for late in queue.ended(now):
                queue.leave(late)
                waiting.discard(late.owner)
        elif event == "pass":
            passed = set()
            while (head := queue.head(passed_over=passed)) is not None:
                passed.add(head)
            assert {ticket.owner for ticket in passed} == waiting
        assert queue.waiting == len(waiting)
        assert queue.bytes == sum(waiting)
        assert {ticket.owner for ticket in queue.in_line()} == waiting
        assert 1 <= queue.retry_after_s(now) <= max(1, wait_s)
    for one in tickets:
        queue.leave(one)
    assert (queue.waiting, queue.bytes) == (0, 0)


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(2, 6), st.integers(1, 16))
def test_tenants_that_always_wait_get_equal_service(seed, tenants, at_once):
    """Jain's index of the weighted tokens they had is at least 0.95, whatever they ask for and however their outputs
    turn out, with as many served at once as tenants or more."""
    rng = random.Random(seed)
    queue = Queue(Bounds(waiting_max=10_000))
    sizes = [rng.choice([50, 500, 5000]) for _ in range(tenants)]
    answers = [rng.choice([10, 200, 1500]) for _ in range(tenants)]
    had = [0.0] * tenants

    def ask(tenant):
        tokens = rng.uniform(0.5, 1.5) * sizes[tenant]
        assert queue.enter(Ticket(tenant, tenant=str(tenant), tokens=tokens), 0.0) is None

    for tenant in range(tenants):
        # Those who ask most have longer lines, which is to help nobody.
        for _ in range(1 + 20 * tenant):
            ask(tenant)
    running = []
    while min(had) < 200_000:
        while len(running) < at_once:
            head = queue.head()
            # First, so that nobody ever stops waiting.
            ask(head.owner)
            queue.serve(head, 0.0)
            running.append(head)
        done = running.pop(rng.randrange(len(running)))
        completion = rng.uniform(0.3, 1.7) * answers[done.owner]
        queue.settle(done, done.tokens, completion)
        had[done.owner] += done.tokens + 2 * completion
    assert sum(had) ** 2 / (tenants * sum(one * one for one in had)) >= 0.95


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.floats(0.02, 0.2))
def test_no_band_starves(seed, min_share):
    rng = random.Random(seed)
    queue = Queue(Bounds(waiting_max=10_000, min_share=min_share))
    had = dict.fromkeys(Band, 0.0)

    def ask(band):
        queue.enter(Ticket(band, band=band, tokens=rng.uniform(100, 3000)), 0.0)

    for band in Band:
        ask(band)
        ask(band)
    for _ in range(3000):
        head = queue.head()
        queue.serve(head, 0.0)
        had[head.band] += head.charged
        ask(head.owner)
    for band in (Band.NORMAL, Band.LOW, Band.BATCH):
        assert had[band] / had[Band.HIGH] >= min_share * 0.8
    assert had[Band.HIGH] / sum(had.values()) >= 1 - 4 * min_share - 0.05
