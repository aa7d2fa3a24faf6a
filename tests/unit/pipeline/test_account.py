import pytest

from llmproxy.pipeline.account import millis


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0, 0.0), (0.01234567, 12.346), (0.0004994, 0.499), (1.9999996, 2000.0), (86_400.5, 86_400_500.0)],
)
def test_times_are_told_in_milliseconds_to_the_microsecond(seconds: float, expected: float) -> None:
    assert millis(seconds) == expected
