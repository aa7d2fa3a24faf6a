"""Cron: what comes round when, in any zone, through both changes of the clock."""

from datetime import UTC, datetime

import pytest

from llmproxy.policy.scaling.cron import Cron, CronError, zone


def at(text: str) -> float:
    """Unix seconds of an ISO time, in UTC where it says no offset."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def shown(unix_s: float | None) -> str:
    assert unix_s is not None
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("text", "now", "previous", "following"),
    [
        ("0 9 * * 1-5", "2026-03-04T12:00", "2026-03-04 09:00", "2026-03-05 09:00"),
        ("0 9 * * 1-5", "2026-03-07T12:00", "2026-03-06 09:00", "2026-03-09 09:00"),
        ("0 9 * * mon-fri", "2026-03-07T12:00", "2026-03-06 09:00", "2026-03-09 09:00"),
        ("0 0 * * 6-7", "2026-03-04T12:00", "2026-03-01 00:00", "2026-03-07 00:00"),
        ("0 0 * * 7", "2026-03-04T12:00", "2026-03-01 00:00", "2026-03-08 00:00"),
        ("0 0 * * 0", "2026-03-04T12:00", "2026-03-01 00:00", "2026-03-08 00:00"),
        ("0 0 * * fri-sun", "2026-03-04T12:00", "2026-03-01 00:00", "2026-03-06 00:00"),
        ("*/15 * * * *", "2026-03-04T12:14:59", "2026-03-04 12:00", "2026-03-04 12:15"),
        ("*/15 * * * *", "2026-03-04T12:15:00", "2026-03-04 12:15", "2026-03-04 12:30"),
        ("5/20 1,2 * * *", "2026-03-04T02:30", "2026-03-04 02:25", "2026-03-04 02:45"),
        ("0 0 29 2 *", "2026-03-04T12:00", "2024-02-29 00:00", "2028-02-29 00:00"),
        ("0 0 29 2 *", "2099-03-04T12:00", "2096-02-29 00:00", "2104-02-29 00:00"),
        ("0 0 13 * 5", "2026-03-04T12:00", "2026-02-27 00:00", "2026-03-06 00:00"),
        ("0 0 1 jan-mar *", "2026-05-04T12:00", "2026-03-01 00:00", "2027-01-01 00:00"),
        ("@monthly", "2026-05-04T12:00", "2026-05-01 00:00", "2026-06-01 00:00"),
    ],
)
def test_what_comes_round_when(text: str, now: str, previous: str, following: str) -> None:
    cron = Cron(text, zone("UTC"))
    assert shown(cron.previous(at(now))) == previous
    assert shown(cron.next(at(now))) == following


def test_a_zone_of_its_own() -> None:
    cron = Cron("0 9 * * *", zone("Asia/Karachi"))
    assert shown(cron.next(at("2026-03-04T03:59"))) == "2026-03-04 04:00"
    assert shown(cron.previous(at("2026-03-04T03:59"))) == "2026-03-03 04:00"


def test_what_the_clock_jumps_over_comes_at_the_jump() -> None:
    # New York: 8 March 2026, 2:00 becomes 3:00, which is 7:00 UTC.
    cron = Cron("30 2 * * *", zone("America/New_York"))
    assert shown(cron.next(at("2026-03-08T00:00"))) == "2026-03-08 07:00"
    assert shown(cron.previous(at("2026-03-08T07:00"))) == "2026-03-08 07:00"
    assert shown(cron.previous(at("2026-03-08T06:59"))) == "2026-03-07 07:30"
    assert shown(cron.next(at("2026-03-08T07:00"))) == "2026-03-09 06:30"


def test_what_the_clock_shows_twice_comes_once() -> None:
    # New York: 1 November 2026, 2:00 becomes 1:00; 1:30 is 5:30 and again 6:30 UTC.
    cron = Cron("30 1 * * *", zone("America/New_York"))
    assert shown(cron.next(at("2026-11-01T04:00"))) == "2026-11-01 05:30"
    assert shown(cron.next(at("2026-11-01T05:30"))) == "2026-11-02 06:30"
    assert shown(cron.previous(at("2026-11-01T06:15"))) == "2026-11-01 05:30"
    assert shown(cron.previous(at("2026-11-01T06:45"))) == "2026-11-01 05:30"


def test_the_days_around_a_change_keep_their_hours() -> None:
    cron = Cron("0 9 * * *", zone("Europe/Berlin"))
    assert shown(cron.next(at("2026-03-28T12:00"))) == "2026-03-29 07:00"
    assert shown(cron.previous(at("2026-03-29T06:00"))) == "2026-03-28 08:00"


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("0 9 * *", 1, "five fields"),
        ("0 9 * * 8", 9, "from 0 to 7"),
        ("60 9 * * 1", 1, "from 0 to 59"),
        ("0 9,25 * * 1", 5, "from 0 to 23"),
        ("0 9 10-5 * 1", 5, "ends before it begins"),
        ("0 9 * foo 1", 7, "'foo'"),
        ("0 9 L * *", 5, "'L'"),
        ("*/0 * * * *", 1, "step"),
        ("0 0 31 2 *", 1, "no day"),
        ("0  9 * * x", 10, "'x'"),
    ],
)
def test_mistakes_point_at_their_column(text: str, column: int, words: str) -> None:
    with pytest.raises(CronError) as caught:
        Cron(text, zone("UTC"))
    assert words in str(caught.value)
    assert caught.value.column == column


def test_an_unknown_zone() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        zone("Asia/Atlantis")
    with pytest.raises(ValueError, match="no time zone"):
        zone("../etc/passwd")
