"""The same in virtual time, with every token's moment."""

import random
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from bench.reality.play import Times
from llmproxy.sim.backends import parse_backends
from llmproxy.sim.contender import Contender
from llmproxy.sim.engine import Engine
from llmproxy.sim.fleet import Fleet, Job
from llmproxy.sim.profile import Profile
from llmproxy.sim.score import ttft_s
from llmproxy.sim.trace import Arrival


class _Watched(Engine[Job]):
    """Notes when each job got each token, so it takes every step."""

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile.engine_options())
        self.tokens_at: defaultdict[int, list[float]] = defaultdict(list)

    def advance(self, now: float) -> list[Job]:
        produced = super().advance(now)
        for job in produced:
            self.tokens_at[job.number].append(now)
        return produced

    def coast(self, before: float) -> None:
        pass


def simulate(trace: Sequence[Arrival], backends: int, profile: Profile, policy: str, seed: int = 0) -> Times:
    """The trace through `policy` to so many engines of `profile`."""
    servers = [backend.server(profile) for backend in parse_backends(str(backends))]
    watched = [_Watched(profile) for _ in servers]
    for server, engine in zip(servers, watched, strict=True):
        server.engine = engine
    rng = random.Random(f"{seed}/policy")
    jobs = Fleet(servers, [Contender(policy).build(rng)]).run(trace)
    gaps = [
        later - sooner
        for engine in watched
        for moments in engine.tokens_at.values()
        for sooner, later in pairwise(moments)
    ]
    return Times(tuple(ttft_s(job) for job in jobs), tuple(gaps))
