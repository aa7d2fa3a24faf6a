"""Traffic that stops and comes back, through the whole law: who comes back finds a fleet."""

import pytest

from llmproxy.sim.scaling.fleet import Model
from llmproxy.sim.scaling.ours import Ours
from llmproxy.sim.scaling.race import run
from tests.harness.noise import noisy

TRAFFIC = [*noisy(40.0, 1200), *[0] * 1200, *noisy(40.0, 600)]


@pytest.mark.parametrize(("silence", "attained"), [("1h", 0.999), ("10m", 0.95), ("0s", 0.95)])
def test_who_comes_back_finds_a_fleet(silence: str, attained: float) -> None:
    model = Model()
    result = run("ours", Ours(model, [("demand", {"silence": silence})]), model, TRAFFIC)
    assert (result.slo_attained >= attained) is (silence == "1h")
