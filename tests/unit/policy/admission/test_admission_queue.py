"""Who goes next, who may wait, and that nothing stays behind."""

from math import inf

import pytest

from llmproxy.policy.admission.queue import Bounds, Queue
from llmproxy.policy.admission.ticket import Band, Reason, Ticket


def ticket(name="", tenant="a", **more):
    return Ticket(name, tenant=tenant, **{"tokens": 100.0, **more})


def entered(queue, *tickets, now=0.0):
    for one in tickets:
        assert queue.enter(one, now) is None
    return queue


def served(queue, count=99, now=1.0):
    """Names, in the order of being served."""
    names = []
    while len(names) < count and (one := queue.head()) is not None:
        assert queue.serve(one, now)
        names.append(one.owner)
    return names


def test_inside_a_tenant_the_nearest_deadline_then_who_came_first():
    queue = entered(
        Queue(Bounds()), ticket("1"), ticket("2", deadline=9.0), ticket("3", deadline=5.0), ticket("4", deadline=9.0)
    )
    assert served(queue) == ["3", "2", "4", "1"]


def test_better_bands_go_first_and_worse_ones_get_their_share():
    queue = Queue(Bounds(min_share=0.1))
    entered(queue, *(ticket("high", band=Band.HIGH) for _ in range(40)), *(ticket("low", band=Band.LOW) for _ in "ab"))
    names = served(queue, 40)
    assert names[:9] == ["high"] * 9
    assert names.count("low") == 2
    # Nobody is left to owe anything to.
    entered(queue, ticket("low", band=Band.LOW))
    assert served(queue)[0] == "high"


def test_without_a_least_share_priorities_are_strict():
    queue = Queue(Bounds(min_share=0.0))
    entered(queue, ticket("batch", band=Band.BATCH), *(ticket("normal") for _ in range(50)))
    assert served(queue)[-1] == "batch"


def test_tenants_take_turns_by_tokens_not_by_requests():
    queue = Queue(Bounds())
    entered(queue, *(ticket("large", "x", tokens=4600.0) for _ in range(4)))
    entered(queue, *(ticket("small", "y", tokens=600.0) for _ in range(20)))
    names = served(queue, 12)
    # With 400 for the expected output, x's cost five times what y's do.
    assert names.count("large") == 2
    assert names.count("small") == 10


def test_a_weight_is_a_larger_share():
    queue = Queue(Bounds())
    entered(queue, *(ticket("x", "x") for _ in range(30)), *(ticket("y", "y", weight=3.0) for _ in range(30)))
    assert served(queue, 20).count("y") == 15


def test_idle_time_is_no_credit():
    queue = Queue(Bounds())
    entered(queue, *(ticket("busy", "x") for _ in range(30)))
    served(queue, 20)
    entered(queue, *(ticket("late", "y") for _ in range(10)))
    assert served(queue, 10).count("late") == 5


def test_what_was_used_counts_not_what_was_expected():
    queue = Queue(Bounds())
    one = ticket("x0", "x")
    entered(queue, one, *(ticket("x", "x") for _ in range(9)), *(ticket("y", "y") for _ in range(30)))
    assert served(queue, 1) == ["x0"]
    queue.settle(one, 100, 2200)
    # x had 4,500 where 500 were expected, and 900 are expected of everyone now.
    assert served(queue, 6) == ["y"] * 5 + ["x"]


def test_a_refund_gives_the_turn_back():
    queue = Queue(Bounds())
    one = ticket("x0", "x")
    entered(queue, one, ticket("x", "x"), ticket("y", "y"))
    served(queue, 1)
    queue.refund(one)
    queue.refund(one)
    assert served(queue) == ["x", "y"]


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        (Bounds(waiting_max=2), Reason.FULL),
        (Bounds(bytes_max=250), Reason.BYTES),
        (Bounds(tenant_waiting_max=2), Reason.TENANT),
        (Bounds(tenant_bytes_max=250), Reason.TENANT),
    ],
)
def test_bounds(bounds, reason):
    queue = Queue(bounds)
    one, two = ticket(bytes=100), ticket(bytes=100)
    entered(queue, one, two)
    assert queue.enter(ticket(bytes=100), 0.0) is reason
    other = queue.enter(ticket(tenant="b", bytes=100), 0.0)
    assert other is (None if reason is Reason.TENANT else reason)
    queue.leave(one)
    assert queue.enter(ticket(bytes=100), 0.0) is None


def test_of_all_that_is_wrong_only_a_full_line_may_be_set_right():
    for bounds, reason in (
        (Bounds(waiting_max=1, bytes_max=100), Reason.BYTES),
        (Bounds(waiting_max=1, tenant_waiting_max=1), Reason.TENANT),
    ):
        assert entered(Queue(bounds), ticket(bytes=100)).enter(ticket(bytes=1), 0.0) is reason


def test_a_full_line_makes_way_for_a_better_priority():
    queue = Queue(Bounds(waiting_max=40, min_share=0.05))
    lows = [ticket(str(number), tenant="ab"[number % 3 == 0], band=Band.LOW) for number in range(37)]
    batch = [ticket("batch", band=Band.BATCH) for _ in range(3)]
    entered(queue, *lows, *batch)
    high = ticket("high", band=Band.HIGH)
    assert queue.gives_way(high) is batch[-1]
    queue.leave(batch.pop())
    # They keep two of forty places.
    assert queue.gives_way(high) is lows[35]
    queue.leave(lows[35])
    assert queue.gives_way(high) is lows[34]
    assert queue.gives_way(ticket("worse", tenant="c", band=Band.BATCH)) is batch[-1]
    assert Queue(Bounds()).gives_way(high) is None


def test_a_worse_priority_takes_nobodys_place():
    queue = entered(Queue(Bounds(waiting_max=2)), ticket("1"), ticket("2"))
    assert queue.gives_way(ticket(tenant="b", band=Band.LOW)) is None


def test_a_full_line_makes_way_for_whoever_has_a_shorter_one():
    queue = Queue(Bounds(waiting_max=5))
    flood = [ticket(str(number), deadline=[9.0, 5.0, 9.0][number]) for number in range(3)]
    entered(queue, *flood, ticket("b", tenant="b"))
    other = ticket("b", tenant="b")
    assert queue.gives_way(other) is flood[2]
    entered(queue, other)
    # Three and two: to change places would change nothing.
    assert queue.gives_way(ticket("b", tenant="b")) is None
    assert queue.gives_way(ticket("c", tenant="c")) is flood[2]
    assert queue.gives_way(ticket()) is None


def test_one_body_however_large_may_wait_alone():
    queue = entered(Queue(Bounds(bytes_max=10)), ticket(bytes=100))
    assert queue.bytes == 100


def test_no_places_at_all():
    assert Queue(Bounds(waiting_max=0)).enter(ticket(), 0.0) is Reason.FULL
    assert Queue(Bounds(tenant_waiting_max=0)).enter(ticket(), 0.0) is Reason.TENANT


def test_leaving_from_anywhere_and_twice_and_entering_twice():
    queue = Queue(Bounds())
    tickets = [ticket(str(number)) for number in range(5)]
    entered(queue, *tickets, tickets[0])
    for gone in (tickets[2], tickets[2], tickets[4], ticket()):
        queue.leave(gone)
    assert queue.waiting == 3
    assert served(queue) == ["0", "1", "3"]
    queue.leave(tickets[0])
    assert not queue.serve(tickets[0], 0.0)
    assert (queue.waiting, queue.bytes) == (0, 0)


def test_waits_end():
    queue = Queue(Bounds(wait_s=30.0))
    one, two, three = ticket(), ticket(), ticket()
    queue.enter(one, 0.0)
    queue.enter(two, 1.0, 4.0)
    queue.enter(three, 2.0, inf)
    assert queue.ended(3.9) == []
    assert queue.ended(4.0) == [two]
    assert queue.ended(32.0) == [two, one, three]
    queue.demote(two, 4.0)
    assert queue.ended(30.0) == [one]
    assert two.deadline == inf


def test_a_closed_lane_holds_up_nobody_else():
    queue = entered(Queue(Bounds()), ticket("long", lane=1, deadline=1.0), ticket("chat", deadline=2.0))
    assert queue.head().owner == "long"
    assert queue.head(frozenset({1})).owner == "chat"
    assert queue.head(frozenset({0, 1})) is None


def test_those_passed_over_keep_their_place():
    first, second, third = ticket("1"), ticket("2"), ticket("3", "b")
    queue = entered(Queue(Bounds()), first, second, third)
    assert queue.head(passed_over={first}) is second
    assert queue.head(passed_over={first, second}) is third
    assert queue.head(passed_over={first, second, third}) is None
    assert queue.head() is first


def test_positions_count_turns():
    queue = entered(Queue(Bounds()), *(ticket(tenant="x") for _ in range(10)), ticket(tenant="y"))
    assert queue.position(ticket(tenant="x")) == 11
    assert queue.position(ticket(tenant="y")) == 3
    assert queue.position(ticket(tenant="z")) == 2
    assert queue.position(ticket(tenant="z", band=Band.HIGH)) == 0
    assert queue.position(ticket(tenant="z", band=Band.LOW)) == 11


def test_eta_and_retry_after_follow_the_pace():
    queue = Queue(Bounds(wait_s=30.0))
    assert queue.eta_s(ticket(), 0.0) is None
    assert queue.retry_after_s(0.0) == 30
    for second in range(8):
        one = ticket()
        queue.enter(one, float(second))
        queue.serve(one, float(second))
    entered(queue, *(ticket() for _ in range(5)), now=8.0)
    assert queue.eta_s(ticket(), 8.0) == 5.0
    assert queue.retry_after_s(8.0) == 6
    # What was long ago tells nothing.
    assert queue.eta_s(ticket(), 100.0) is None


def test_ten_thousand_leave_and_nothing_is_kept():
    queue = Queue(Bounds(waiting_max=20_000, tenant_waiting_max=20_000))
    for number in range(10_000):
        one = ticket(tenant=f"t{number % 5000}", bytes=10, deadline=float(number % 7), lane=number % 3)
        assert queue.enter(one, 0.0) is None
        if number % 2:
            queue.leave(one)
    for one in queue.in_line():
        queue.leave(one)
    assert (queue.waiting, queue.bytes, queue.in_line(), queue.ended(inf)) == (0, 0, [], [])
    assert queue.remembered == 0


def test_tenants_that_were_served_are_forgotten_in_time():
    queue = Queue(Bounds())
    for number in range(20_000):
        one = ticket(tenant=str(number), tokens=float(number % 100))
        queue.enter(one, 0.0)
        queue.serve(one, 0.0)
        queue.settle(one, 10, 10 + number % 50)
    assert queue.remembered <= 1100
