import math

import pytest

from llmproxy.config.units import format_duration, format_size, parse_duration, parse_ratio, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("250ms", 0.25),
        ("5m", 300),
        ("1h", 3600),
        ("1m30s", 90),
        ("1h 5m", 3900),
        ("2d", 172800),
        ("0", 0),
        ("30", 30),
        (" 1.5 s ", 1.5),
        ("500us", 0.0005),
        (7, 7),
        (0.5, 0.5),
    ],
)
def test_durations(text, seconds):
    assert math.isclose(parse_duration(text), seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "s",
        "30 sec",
        "-5s",
        "1m30",
        "1e3s",
        "9" * 400,
        "9" * 400 + "s",
        True,
        None,
        [],
        float("inf"),
        10**400,
        float("nan"),
        "nan",
        "inf",
    ],
)
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("32MiB", 32 * 1024**2),
        ("64k", 64000),
        ("64KiB", 65536),
        ("1.5 GB", 1500000000),
        ("10", 10),
        (10, 10),
        ("7b", 7),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "3 apples", "-1", "9" * 400, True, None, 1.5, "1 MiB 2"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(("text", "share"), [("20%", 0.2), ("0.2", 0.2), (0.2, 0.2), (1, 1), (" 50 % ", 0.5)])
def test_shares(text, share):
    assert parse_ratio(text) == share


@pytest.mark.parametrize("text", ["", "%", "nan", "nan%", "inf%", "half", True, None, float("inf")])
def test_what_is_no_share(text):
    with pytest.raises(ValueError, match="is not a share"):
        parse_ratio(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (30.0, "30s"),
        (0.25, "250ms"),
        (300, "300s"),
        (600, "10m"),
        (7200, "2h"),
        (90, "90s"),
        (1.5, "1500ms"),
    ],
)
def test_durations_are_written_as_people_do(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0"), (1000, "1000"), (65536, "64KiB"), (32 * 1024**2, "32MiB"), (1024**3, "1GiB")]
)
def test_sizes_are_written_as_people_do(size, text):
    assert format_size(size) == text


def test_a_long_value_is_not_echoed():
    with pytest.raises(ValueError, match=r"^this is not a duration"):
        parse_duration("x" * 1000)
