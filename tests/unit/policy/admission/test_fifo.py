import pytest

from llmproxy.policy.admission.fifo import FifoQueue


class Waiter:
    """Compared by identity, as signals are."""


@pytest.fixture
def waiters():
    return [Waiter() for _ in range(5)]


def line(queue):
    """Everyone, in the order of being served."""
    found = []
    while (waiter := queue.next()) is not None:
        found.append(waiter)
    return found


def fill(queue, waiters, now=0.0):
    assert all(queue.enter(waiter, now) for waiter in waiters)
    return queue


def test_first_come_first_served(waiters):
    queue = fill(FifoQueue(10, 30.0), waiters)
    assert queue.waiting == 5
    assert line(queue) == waiters
    assert queue.waiting == 0


def test_bounded(waiters):
    queue = fill(FifoQueue(2, 30.0), waiters[:2])
    assert not queue.enter(waiters[2], 0.0)
    queue.leave(waiters[0])
    assert queue.enter(waiters[2], 0.0)
    assert line(queue) == waiters[1:3]


def test_no_places_at_all(waiters):
    assert not FifoQueue(0, 30.0).enter(waiters[0], 0.0)


def test_leaving_from_anywhere_and_twice(waiters):
    queue = fill(FifoQueue(10, 30.0), waiters)
    for gone in (waiters[2], waiters[2], waiters[4], Waiter()):
        queue.leave(gone)
    assert line(queue) == [waiters[0], waiters[1], waiters[3]]


def test_leaving_after_being_served(waiters):
    queue = fill(FifoQueue(10, 30.0), waiters[:2])
    assert queue.next() is waiters[0]
    queue.leave(waiters[0])
    assert line(queue) == waiters[1:2]


def test_entering_twice_keeps_the_place_and_the_time(waiters):
    queue = fill(FifoQueue(2, 30.0), waiters[:2])
    assert queue.enter(waiters[0], 20.0)
    assert queue.expired(30.0) == waiters[:2]


def test_the_wait_ends(waiters):
    queue = FifoQueue(10, 30.0)
    for i, waiter in enumerate(waiters):
        queue.enter(waiter, float(i))
    assert queue.expired(29.9) == []
    assert queue.expired(31.0) == waiters[:2]
    assert queue.expired(31.0) == []
    assert line(queue) == waiters[2:]


def test_new_bounds_after_a_reload(waiters):
    queue = fill(FifoQueue(10, 30.0), waiters)
    queue.configure(3, 5.0)
    assert queue.waiting == 5
    assert not queue.enter(Waiter(), 0.0)
    assert queue.expired(5.0) == waiters


class TestRetryAfter:
    def test_the_whole_wait_when_nothing_moves(self, waiters):
        assert fill(FifoQueue(10, 12.3), waiters).retry_after_s(0.0) == 13

    def test_the_pace_of_the_line(self, waiters):
        queue = FifoQueue(10, 30.0)
        for second in range(8):
            queue.enter(Waiter(), float(second))
            queue.next()
        fill(queue, waiters, 8.0)
        # One a second, five ahead.
        assert queue.retry_after_s(8.0) == 6

    def test_at_least_a_second(self):
        queue = FifoQueue(10, 30.0)
        for i in range(50):
            queue.enter(Waiter(), i * 0.001)
            queue.next()
        assert queue.retry_after_s(0.05) == 1

    def test_at_most_the_wait(self):
        queue = FifoQueue(1000, 30.0)
        for second in (0.0, 25.0):
            queue.enter(Waiter(), second)
            queue.next()
        fill(queue, [Waiter() for _ in range(500)], 25.0)
        assert queue.retry_after_s(29.0) == 30

    def test_forgets_a_pace_of_long_ago(self):
        queue = FifoQueue(10, 30.0)
        for i in range(50):
            queue.enter(Waiter(), i * 0.001)
            queue.next()
        assert queue.retry_after_s(1000.0) == 30

    def test_without_any_wait(self):
        assert FifoQueue(0, 0.0).retry_after_s(0.0) == 1
