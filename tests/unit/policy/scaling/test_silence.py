"""Traffic that stops is not traffic that fades."""

import pytest

from llmproxy.policy.scaling.base import Rates, Signals
from llmproxy.policy.scaling.demand import DemandLaw, DemandOptions
from llmproxy.policy.scaling.meter import DemandMeter
from llmproxy.policy.scaling.options import Seconds
from tests.harness.noise import noisy


class Scene:
    """The law over arrivals, second by second; `wanted` every five."""

    def __init__(self, **options: Seconds) -> None:
        self.law = DemandLaw(DemandOptions(**options))  # type: ignore[arg-type]
        self.meter = DemandMeter(0.0)
        self.now = 0

    def play(self, *counts: int) -> int:
        """What is wanted in the end."""
        found = 0
        for count in counts:
            self.meter.count(self.now + 0.5, count)
            self.now += 1
            if self.now % 5 == 0:
                now = float(self.now)
                signals = Signals(
                    now, ready=10, demand=self.meter.demand(now), sustainable=Rates(4.0), cold_start_s=120.0
                )
                wanted = self.law.want(signals, now)
                assert wanted is not None
                found = wanted.replicas
        return found


def test_what_was_needed_is_kept_through_a_silence_and_for_a_while_after() -> None:
    scene = Scene()
    busy = scene.play(*noisy(40.0, 600))
    assert busy >= 12
    assert scene.play(*[0] * 2400) == busy
    assert scene.play(*noisy(20.0, 290)) == busy, "those that come back may be all of them"
    assert scene.play(*noisy(20.0, 310)) < busy


def test_not_for_ever() -> None:
    scene = Scene(silence=Seconds(1200.0))
    busy = scene.play(*noisy(40.0, 600))
    assert scene.play(*[0] * 1180) == busy
    assert scene.play(*[0] * 600) == 0
    assert scene.play(*[0] * 3000) == 0


@pytest.mark.parametrize("silence_s", [0.0, 3600.0])
def test_traffic_that_fades_is_followed_down(silence_s: float) -> None:
    scene = Scene(silence=Seconds(silence_s))
    scene.play(*noisy(40.0, 600))
    rate = 40.0
    while rate > 0.05:
        rate *= 0.9
        scene.play(*noisy(rate, 60))
    assert scene.play(*[0] * 600) <= 1


def test_the_last_replica_is_not_kept_by_it() -> None:
    scene = Scene()
    assert scene.play(*noisy(1.0, 600)) == 1
    assert scene.play(*[0] * 700) == 0


def test_a_pause_that_bursts_explain_is_none() -> None:
    scene = Scene()
    # 8 a second, 480 once a minute.
    scene.play(*([480, *[0] * 59] * 20))
    scene.play(*[0] * 120)
    assert not scene.law._silence._known
    scene.play(*[0] * 1500)
    assert scene.law._silence._known, "half an hour is no chance there either"


def test_switched_off_it_is_as_if_it_faded() -> None:
    scene = Scene(silence=Seconds(0.0))
    scene.play(*noisy(40.0, 600))
    assert scene.play(*[0] * 700) == 0
