"""Replays of one policy at one load, seeds together: the mean of each figure and how far the seeds lie apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from llmproxy.sim.experiment import Replay


@dataclass(frozen=True, slots=True)
class Spread:
    """`mean` over the seeds (None: nothing was measured) and their standard deviation (None: there is one seed)."""

    mean: float | None
    deviation: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """All seeds of a policy at a load."""

    policy: str
    load: float
    replays: tuple[Replay, ...]

    def of(self, figure: str) -> Spread:
        """A figure of `Score` over the seeds."""
        values = [value for one in self.replays if (value := getattr(one.score, figure)) is not None]
        if not values:
            return Spread(None, None)
        return Spread(mean(values), stdev(values) if len(values) > 1 else None)

    def curve(self) -> list[float]:
        """The TTFTs at equal steps of share, all seeds in one."""
        return sorted(ttft for one in self.replays for ttft in one.ttft_curve)

    def work(self) -> list[float]:
        """For each backend the work it got, relative to the fleet's mean, in the mean over the seeds."""
        return [mean(column) for column in zip(*(one.work for one in self.replays), strict=True)]


def summaries(replays: Sequence[Replay]) -> list[Summary]:
    """One for each policy and load, in the order in which they first come."""
    groups: dict[tuple[str, float], list[Replay]] = {}
    for one in replays:
        groups.setdefault((one.case.policy.name, one.case.load), []).append(one)
    return [Summary(policy, load, tuple(group)) for (policy, load), group in groups.items()]
