"""Each change of a backend's status is one line with its reason, and a backend that flaps does not fill the log."""

import logging

import pytest

from llmproxy.control.status_log import LINES_MAX, PERIOD_S, StatusLog
from llmproxy.core.backend import Backend, BackendSpec, Status
from llmproxy.core.clock import ManualClock


@pytest.fixture
def clock():
    return ManualClock(100.0)


@pytest.fixture
def log(clock, caplog):
    caplog.set_level(logging.INFO, "llmproxy.control.status")
    return StatusLog(clock)


@pytest.fixture
def lines(caplog):
    """What was logged since it was last asked for."""

    def lines():
        found = [(record.levelname, record.getMessage()) for record in caplog.records]
        caplog.clear()
        return found

    return lines


def backend(id="b1", status=Status.NEW):
    return Backend(BackendSpec(id, "http://10.0.0.1:8000"), status=status)


def flap(log, one, times):
    for _ in range(times):
        log.changed("p", one, Status.HEALTHY, Status.OPEN, "why")


def test_a_change_is_one_line_with_pool_backend_and_reason(log, lines):
    log.changed("p", backend(), Status.LOADING, Status.HEALTHY, "probe: well")
    assert lines() == [("INFO", "pool p: backend b1: loading -> healthy (probe: well)")]


@pytest.mark.parametrize(
    ("before", "after", "level"),
    [
        (Status.NEW, Status.LOADING, "INFO"),
        (Status.NEW, Status.UNHEALTHY, "WARNING"),
        (Status.HEALTHY, Status.UNHEALTHY, "WARNING"),
        (Status.HEALTHY, Status.LOADING, "WARNING"),
        (Status.UNHEALTHY, Status.LOADING, "INFO"),
        (Status.HEALTHY, Status.OPEN, "WARNING"),
        (Status.OPEN, Status.HALF_OPEN, "INFO"),
        (Status.HALF_OPEN, Status.OPEN, "WARNING"),
        (Status.HALF_OPEN, Status.HEALTHY, "INFO"),
        (Status.HEALTHY, Status.SLEEPING, "INFO"),
        (Status.HEALTHY, Status.DRAINING, "INFO"),
    ],
)
def test_what_is_bad_is_a_warning(log, lines, before, after, level):
    log.changed("p", backend(), before, after, "why")
    assert lines()[0][0] == level


def test_of_a_backend_that_flaps_only_so_much_is_told(log, lines, clock):
    one, other = backend("b1"), backend("b2")
    flap(log, one, LINES_MAX + 20)
    said = lines()
    assert len(said) == LINES_MAX
    assert said[-1][1].endswith("it changes often: the next ones are not logged, for up to 60 s")
    # Others are told of as ever, one of another pool with the same id too.
    flap(log, other, 1)
    log.changed("q", one, Status.HEALTHY, Status.OPEN, "why")
    assert len(lines()) == 2
    # A new period, and with its first line what was left out.
    clock.advance(PERIOD_S)
    flap(log, one, 2)
    first, second = lines()
    assert first[1] == "pool p: backend b1: healthy -> open (why); 20 changes before this one were not logged"
    assert second[1] == "pool p: backend b1: healthy -> open (why)"


@pytest.mark.parametrize(("status", "level"), [(Status.HEALTHY, "INFO"), (Status.OPEN, "WARNING")])
def test_where_it_got_to_is_told_in_the_end(log, lines, clock, status, level):
    one = backend(status=status)
    flap(log, one, LINES_MAX + 5)
    lines()
    log.calm("p", one)
    assert lines() == [], "the period is not over"
    clock.advance(PERIOD_S)
    log.calm("p", one)
    log.calm("p", one)
    assert lines() == [(level, f"pool p: backend b1: {status.value}, after 5 changes not logged")]


def test_calm_says_nothing_when_nothing_was_left_out_and_keeps_nothing(log, lines, clock):
    one = backend()
    flap(log, one, 2)
    lines()
    log.calm("p", one)
    clock.advance(PERIOD_S)
    log.calm("p", one)
    assert lines() == []
    assert log._told == {}


def test_a_backend_that_left_is_forgotten(log, lines):
    one = backend()
    flap(log, one, LINES_MAX + 5)
    log.forget("p", "b1")
    log.forget("p", "b1")
    assert log._told == {}
    lines()
    flap(log, one, 1)
    assert len(lines()) == 1
