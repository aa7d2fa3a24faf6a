"""How long changes take, and who waited meanwhile."""

from llmproxy.control.scaling.cold_starts import ColdStarts


def test_up_lasts_until_they_serve() -> None:
    found = ColdStarts()
    found.decided(1, 3, 10.0)
    found.saw(1, 3, 20.0)
    assert found.changes["up"] == 0
    found.decided(3, 4, 30.0)  # further up: the same change
    found.saw(3, 4, 40.0)
    found.saw(4, 4, 50.0)
    assert (found.changes["up"], found.seconds["up"], found.last_s["up"]) == (1, 40.0, 40.0)
    found.saw(4, 4, 60.0)
    assert found.changes["up"] == 1


def test_down_lasts_until_they_are_gone() -> None:
    found = ColdStarts()
    found.decided(4, 2, 0.0)
    found.saw(2, 4, 5.0)
    assert found.changes["down"] == 0
    found.saw(2, 2, 9.0)
    assert (found.changes["down"], found.seconds["down"]) == (1, 9.0)


def test_one_that_is_overtaken_is_none() -> None:
    found = ColdStarts()
    found.decided(1, 3, 0.0)
    found.decided(3, 1, 5.0)
    found.saw(1, 1, 6.0)
    assert (found.changes["up"], found.changes["down"]) == (0, 1)
    found.decided(1, 1, 7.0)
    found.saw(1, 1, 8.0)
    assert found.changes["down"] == 1


def test_who_waited_or_failed_while_it_was_cold() -> None:
    found = ColdStarts()
    found.counted(5, 1, 0, is_cold=True)
    assert dict(found.requests) == {"waited": 0, "failed": 0}, "of what was before it nothing is known"
    found.counted(9, 2, 0, is_cold=True)
    found.counted(11, 2, 0, is_cold=False)  # their waits ended when it served
    found.counted(20, 9, 0, is_cold=False)
    found.counted(21, 9, 0, is_cold=True)
    assert dict(found.requests) == {"waited": 7, "failed": 1}


def test_a_start_that_is_over_between_two_counts_is_seen() -> None:
    found = ColdStarts()
    found.counted(0, 0, 0, is_cold=False)
    found.decided(0, 1, 0.1)
    found.saw(1, 1, 0.9)
    found.counted(2, 0, 0, is_cold=False)
    found.counted(9, 0, 0, is_cold=False)
    assert dict(found.requests) == {"waited": 2, "failed": 0}


def test_who_waits_still_when_it_serves_has_waited_for_it() -> None:
    found = ColdStarts()
    found.counted(0, 0, 0, is_cold=False)
    found.decided(0, 1, 0.1)
    found.saw(1, 1, 0.9)
    found.counted(1, 0, 3, is_cold=False)  # it serves, and three of four have not heard of it
    found.counted(3, 0, 5, is_cold=False)
    found.counted(9, 0, 0, is_cold=False)  # one of these six, and five who came later
    assert dict(found.requests) == {"waited": 4, "failed": 0}
