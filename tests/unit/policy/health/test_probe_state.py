import pytest

from llmproxy.core.ports import ProbeResult
from llmproxy.policy.health.probe_state import ProbeState
from llmproxy.policy.health.settings import HealthSettings

SETTINGS = HealthSettings(unhealthy_after=3, healthy_after=2)
RESULTS = {
    "+": ProbeResult.OK,
    "r": ProbeResult.REFUSED,
    "5": ProbeResult.LOADING,
    "z": ProbeResult.SLEEPING,
    "-": ProbeResult.FAILED,
}


def labels(probes):
    state = ProbeState()
    seen = []
    for probe in probes:
        state.record(RESULTS[probe], SETTINGS)
        seen.append(state.label.value)
    return seen


def last(probes):
    return labels(probes)[-1]


def test_new_before_any_probe():
    assert ProbeState().label.value == "new"


class TestNewcomer:
    def test_one_success_is_enough(self):
        assert labels("+") == ["healthy"]

    def test_refused_is_loading_for_as_long_as_it_takes(self):
        assert set(labels("r" * 50)) == {"loading"}

    def test_503_is_loading(self):
        assert set(labels("5" * 50)) == {"loading"}

    def test_up_at_once_after_loading(self):
        assert labels("rr5+") == ["loading", "loading", "loading", "healthy"]

    def test_other_trouble_shows(self):
        assert last("-") == "unhealthy"
        assert labels("r-r") == ["loading", "unhealthy", "loading"]

    def test_asleep_from_the_start(self):
        assert labels("zz+") == ["sleeping", "sleeping", "healthy"]

    def test_never_proven_by_sleep_alone(self):
        assert labels("zrrr") == ["sleeping", "sleeping", "sleeping", "loading"]
        assert labels("z---")[-1] == "unhealthy"


class TestProven:
    @pytest.mark.parametrize("bad", ["-", "r", "5"])
    def test_out_after_three_in_a_row_whatever_they_are(self, bad):
        assert labels("+" + bad * 2)[-1] == "healthy"
        assert last("+" + bad * 3) != "healthy"

    def test_a_mixture_counts_together(self):
        assert labels("+5r-")[-1] == "unhealthy"

    def test_a_good_one_in_between_starts_the_count_afresh(self):
        assert set(labels("+--+--+--")) == {"healthy"}

    def test_refused_is_unhealthy_not_loading(self):
        assert last("+rrrrrr") == "unhealthy"

    def test_back_after_two_good_ones_in_a_row(self):
        assert labels("+---+-++")[3:] == ["unhealthy", "unhealthy", "unhealthy", "unhealthy", "healthy"]

    def test_says_503_itself_while_it_comes_back(self):
        assert labels("+rrr5++")[3:] == ["unhealthy", "loading", "loading", "healthy"]

    def test_an_engine_that_dies_says_503_only_in_passing(self):
        assert labels("+5rr")[1:] == ["healthy", "healthy", "unhealthy"]

    def test_as_patient_after_a_recovery_as_before(self):
        assert labels("+rrr++rr")[-1] == "healthy"
        assert last("+rrr++rrr") == "unhealthy"


class TestAsleep:
    def test_at_once_and_back_at_once(self):
        assert labels("+z+") == ["healthy", "sleeping", "healthy"]

    def test_a_missed_probe_does_not_wake_it(self):
        assert labels("+z-")[-1] == "sleeping"

    def test_dead_in_its_sleep(self):
        assert labels("+z---++")[-4:] == ["sleeping", "unhealthy", "unhealthy", "healthy"]

    def test_asleep_when_it_comes_back(self):
        assert labels("+---zz+")[-3:] == ["sleeping", "sleeping", "healthy"]
