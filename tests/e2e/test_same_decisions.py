"""What the proxy decided under load is decided again, request by request, by the policies as the simulator builds them,
from nothing but what was recorded: the moments, the sizes and hashes of prompts, and the seed."""

import asyncio
import random
from typing import Any

import pytest

from llmproxy.core.ports import Moment
from llmproxy.policy.routing.registry import build
from llmproxy.sim.contender import Contender
from tests.harness.proxy import Proxy
from tests.harness.record import Observed, Picked, Recorder, decided_again
from tests.harness.stage import MODEL, Stage

POLICIES = ("expected_cost", "prefix_affinity", "least_connections", "power_of_two", "scored")
FINISHED = Moment.FINISHED
SEED = 5
CHATS = 12
TURNS = 5


def policy(name: str, seed: int = SEED) -> Any:
    return Contender(name).build(random.Random(seed))


async def talk(stage: Stage, proxy: Proxy, number: int) -> None:
    """A chat that grows, each turn's answer read to its end."""
    rng = random.Random(number)
    said = ""
    for turn in range(TURNS):
        said += rng.randbytes(1500).hex()
        body = {
            "model": MODEL,
            # Every third answer comes whole.
            **({"stream": True, "stream_options": {"include_usage": True}} if (number + turn) % 3 else {}),
            "max_tokens": 2 + rng.randrange(6),
            "messages": [{"role": "user", "content": said}],
        }
        answer = await stage.ask(proxy, body, id=f"chat-{number}-{turn}")
        assert answer.status == 200


@pytest.mark.parametrize("name", POLICIES)
async def test_recorded_decisions_are_taken_again(stage: Stage, name: str) -> None:
    engines = await stage.backends(3, itl_s=0.004)
    proxy = await stage.proxy(*engines, pool={"signals": {"interval": "0s"}})
    recorder = Recorder(policy(name))
    proxy.pool().set_routing(recorder)
    await asyncio.gather(*(talk(stage, proxy, number) for number in range(CHATS)))
    await proxy.without_clients()

    picks = recorder.picks
    assert len(picks) == CHATS * TURNS
    # They were decisions: there was a choice, work under way, and no single answer.
    assert all(len(pick.candidates) == 3 for pick in picks)
    assert max(count for pick in picks for _, count in pick.candidates) >= 3
    assert len({pick.chosen for pick in picks}) == 3
    # And that is what production did: the access log has them in the order in which they ended.
    ended = [event.backend for event in recorder.events if isinstance(event, Observed) and event.moment is FINISHED]
    assert [line["backend"] for line in await proxy.log()] == ended

    specs = [backend.spec for backend in proxy.pool().backends]
    expected = [(pick.chosen, pick.reason) for pick in picks]
    assert decided_again(recorder.events, policy(name), specs) == expected
    # Neither do all policies agree, nor do all seeds.
    other = "round_robin" if name != "round_robin" else "least_connections"
    assert decided_again(recorder.events, policy(other), specs) != expected


async def test_a_change_of_what_was_recorded_is_noticed(stage: Stage) -> None:
    engines = await stage.backends(3, itl_s=0.004)
    proxy = await stage.proxy(*engines)
    recorder = Recorder(policy("expected_cost"))
    proxy.pool().set_routing(recorder)
    await asyncio.gather(*(talk(stage, proxy, number) for number in range(CHATS)))
    await proxy.without_clients()
    expected = [(pick.chosen, pick.reason) for pick in recorder.picks]
    specs = [backend.spec for backend in proxy.pool().backends]
    assert {reason for _, reason in expected} >= {"prefix", "tie"}
    assert decided_again(recorder.events, policy("expected_cost", SEED + 1), specs) != expected
    forgetful = [
        Picked(**{**vars(event), "blocks": ()}) if isinstance(event, Picked) else event for event in recorder.events
    ]
    assert decided_again(forgetful, policy("expected_cost"), specs) != expected


def test_policies_of_the_proxy_and_of_the_simulator_are_the_same_classes() -> None:
    for name in POLICIES:
        assert type(policy(name)) is type(build(name, {}, random.Random(0)))
