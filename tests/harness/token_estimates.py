"""How far the proxy's estimates of prompt tokens are from what an engine's tokenizer counts."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from tests.harness.client import Answer
from tests.harness.proxy import Proxy
from tests.harness.stage import CHAT, Stage

_TEXT: Final = (
    "the of and to in is that for it was on are with as be at this have from or had by not but what all were when we "
    "there can an your which their said if do will each about how up out them then she many some so these would other "
    "engine prompt token backend latency throughput scheduling unfortunately international characteristics"
)
_HAN: Final = (
    "的一是不了人我在有他这为之大来以个中上们到说国和地也子时道出而要"
    "于就下得可你年生自会那后能对着事其里所去行过家十用发天如然作方成者"
)


def english(dice: random.Random, size: int) -> str:
    words = _TEXT.split()
    return " ".join(dice.choice(words) for _ in range(size // 5))


def chinese(dice: random.Random, size: int) -> str:
    return "".join(dice.choice(_HAN) for _ in range(size // 6))


def records(dice: random.Random, size: int) -> str:
    words = _TEXT.split()
    rows = [{"id": dice.randrange(10**9), "name": dice.choice(words), "x": dice.random()} for _ in range(size // 60)]
    return json.dumps(rows, indent=1)


KINDS: Final[Sequence[Callable[[random.Random, int], str]]] = (english, chinese, records)


async def errors(
    stage: Stage,
    proxy: Proxy,
    model: str,
    count: Callable[[list[dict[str, Any]]], Any],
    kind: Callable[[random.Random, int], str],
    prompts: int,
    most_bytes: int = 5000,
) -> list[float]:
    """For one prompt after the other, each of another size and content: by which share the estimate, made before the
    engine has seen it, is off. `count` says how many tokens messages are (a coroutine function)."""
    dice = random.Random(11)
    found = []
    for _ in range(prompts):
        messages = [{"role": "user", "content": kind(dice, dice.randrange(400, most_bytes))}]
        exact = await count(messages)
        body = {"model": model, "messages": messages, "max_tokens": 1, "stream": True}
        answer = await stage.ask(
            proxy, body | {"stream_options": {"include_usage": True}}, CHAT, headers=[("X-LLMProxy-Debug", "route")]
        )
        assert answer.status == 200, answer.body
        found.append(abs(_estimate(answer) / exact - 1))
    return found


def _estimate(answer: Answer) -> float:
    best = json.loads(answer.header("x-llmproxy-route") or "")["best"][0]
    return float(best["cached_tokens"] + best["uncached_tokens"])
