"""What an engine says of itself is what its scheduler knew when the last step ended."""

from collections.abc import Sequence as Ordered
from typing import ClassVar

from llmproxy.core.backend import Backend
from llmproxy.core.request import Request
from llmproxy.policy.routing.base import Unlearning
from llmproxy.policy.routing.options import NoOptions
from llmproxy.sim import Engine, EngineOptions, Sequence
from llmproxy.sim.fleet import Fleet, Job, Server
from llmproxy.sim.profile import Profile
from llmproxy.sim.published import NOTHING, Published
from llmproxy.sim.trace import Arrival

OPTIONS = EngineOptions(ttft_s=0.0, itl_s=0.1, prefill_s_per_token=0.01, max_batched_tokens=10, block_size=4)


def step(engine: Engine[Sequence]) -> Published:
    """End the step under way, and begin the next."""
    assert engine.due is not None
    engine.advance(engine.due)
    return engine.published


def test_who_comes_during_a_step_is_counted_at_the_end_of_the_next() -> None:
    engine: Engine[Sequence] = Engine(OPTIONS)
    engine.submit(Sequence(25, 3), 0.0)
    assert step(engine) == NOTHING
    engine.submit(Sequence(15, 3), 0.05)
    assert engine.untouched == 1
    assert step(engine) == Published(running=1, waiting=0, kv_used=3)
    assert step(engine) == Published(running=1, waiting=1, kv_used=5)
    # The last 5 tokens of the first, and 5 of the second.
    assert step(engine) == Published(running=2, waiting=0, kv_used=7 + 2)


def test_it_stands_until_the_next_step_ends() -> None:
    engine: Engine[Sequence] = Engine(OPTIONS)
    engine.submit(Sequence(5, 1), 0.0)
    step(engine)
    assert step(engine) == NOTHING
    engine.submit(Sequence(5, 2), 7.0)
    assert engine.published == NOTHING
    step(engine)
    assert step(engine) == Published(running=1, waiting=0, kv_used=2)


def test_who_has_no_place_waits() -> None:
    engine: Engine[Sequence] = Engine(EngineOptions(max_num_seqs=1, ttft_s=0.0, block_size=4))
    for _ in range(3):
        engine.submit(Sequence(4, 2), 0.0)
    step(engine)
    assert step(engine) == Published(running=1, waiting=2, kv_used=2)


def test_coasting_counts_as_each_step_would() -> None:
    engine: Engine[Sequence] = Engine(EngineOptions(max_num_seqs=1, ttft_s=0.0, itl_s=0.1, prefill_s_per_token=0.0))
    engine.submit(Sequence(4, 9), 0.0)
    step(engine)
    step(engine)
    assert engine.due is not None
    engine.submit(Sequence(4, 9), engine.due - 0.05)
    engine.coast(engine.due + 0.05)
    assert engine.published == Published(running=1, waiting=0, kv_used=1)
    assert step(engine) == Published(running=1, waiting=1, kv_used=1)
    engine.submit(Sequence(4, 9), engine.due - 0.05)
    engine.coast(engine.due + 0.15)
    assert engine.published == Published(running=1, waiting=2, kv_used=1)


def test_a_server_tells_either() -> None:
    server = Server("one", Profile(kv_blocks=10, block_size=4, max_batched_tokens=10))
    server.engine.submit(Job(0, Arrival(0.0, 20, 1), Request()), 0.0)
    server.engine.advance(0.0)
    now, told = server.gauges(0.0), server.gauges(0.0, by_step=True)
    assert (now.running, now.waiting, now.kv_usage) == (1.0, 0.0, 0.5)
    assert (told.running, told.waiting, told.kv_usage) == (0.0, 0.0, 0.0)
    assert now.kv_tokens == told.kv_tokens == 40
    server.engine.advance(server.engine.due or 0.0)
    assert server.gauges(1.0, by_step=True).kv_usage == 0.3


class Looking(Unlearning):
    """Picks the first, and notes what it is told of it."""

    options_type: ClassVar = NoOptions

    def __init__(self) -> None:
        self.told: list[float] = []

    def pick(self, candidates: Ordered[Backend], request: Request, now: float) -> Backend:
        gauges = candidates[0].gauges
        self.told.append(-1.0 if gauges is None or gauges.kv_usage is None else gauges.kv_usage)
        return candidates[0]


def test_policies_are_told_either() -> None:
    found = []
    for by_step in (False, True):
        policy = Looking()
        server = Server("one", Profile(kv_blocks=10, block_size=512, max_batched_tokens=512))
        fleet = Fleet([server], [policy], scrape_s=0.01, by_step=by_step)
        fleet.run([Arrival(0.0, 1024, 1), Arrival(0.02, 1024, 1), Arrival(20.0, 1024, 1)])
        found.append(policy.told)
    # The first prompt's two blocks are taken at once, and of what is computed nothing is known before the step ends.
    assert found == [[0.0, 0.2, 0.0], [0.0, 0.0, 0.0]]
