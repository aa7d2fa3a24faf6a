"""Routing by expected cost through the whole proxy: a conversation goes on where its beginning is cached."""

from tests.harness.stage import CHAT, MODEL, Stage

LONG = "The quick brown fox jumps over the lazy dog. " * 400


def conversation(name: str, turns: int) -> dict[str, object]:
    messages = [{"role": "user", "content": f"{name} {number}: {LONG}"} for number in range(turns)]
    return {"model": MODEL, "stream": True, "max_tokens": 2, "messages": messages}


async def test_conversations_stay_where_their_prefix_is(stage: Stage) -> None:
    engines = await stage.backends(3)
    proxy = await stage.proxy(*engines, pool={"policy": "expected_cost"})
    homes = {}
    for turns in range(1, 5):
        for name in ("a", "b", "c", "d", "e", "f"):
            answer = await stage.ask(proxy, conversation(name, turns), path=CHAT)
            assert answer.status == 200
            homes.setdefault(name, []).append(answer.header("x-llmproxy-backend"))
    assert all(len(set(seen)) == 1 for seen in homes.values()), homes
    # Not all in one place: whoever is new goes where least is in the way.
    assert len({seen[0] for seen in homes.values()}) > 1


async def test_without_it_they_do_not(stage: Stage) -> None:
    engines = await stage.backends(3)
    proxy = await stage.proxy(*engines, pool={"policy": "round_robin"})
    seen = [
        (await stage.ask(proxy, conversation("a", turns), path=CHAT)).header("x-llmproxy-backend")
        for turns in range(1, 5)
    ]
    assert len(set(seen)) == 3
