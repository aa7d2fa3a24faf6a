"""Questions sent at their moments, whatever has become of those before them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.reality.traffic import Question
from llmproxy.calibrate.engine import EngineClient, Heard, session
from llmproxy.sim.trace import Arrival


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds. `itls_s` are the times between tokens, of all requests together."""

    ttfts_s: tuple[float, ...]
    itls_s: tuple[float, ...]


async def play(url: str, model: str, questions: Sequence[Question]) -> list[Heard]:
    """The answers, in the questions' order. Raises `EngineError` when one fails."""
    loop = asyncio.get_running_loop()
    async with session() as http:
        client = EngineClient(http, url)
        begin = loop.time()

        async def ask(question: Question) -> Heard:
            await asyncio.sleep(begin + question.at_s - loop.time())
            return await client.ask(model, question.prompt, question.output_tokens)

        return await asyncio.gather(*(ask(question) for question in questions))


def times_of(heard: Sequence[Heard], faster: float = 1.0) -> Times:
    """What was heard, as it would have been at the trace's own speed."""
    return Times(
        tuple(one.ttft_s * faster for one in heard),
        tuple((later - sooner) * faster for one in heard for sooner, later in pairwise(one.tokens_at)),
    )


def as_trace(questions: Sequence[Question], heard: Sequence[Heard]) -> list[Arrival]:
    """What was really sent, and when; nothing shared."""
    first = min(one.sent_at for one in heard)
    found = [
        Arrival(one.sent_at - first, one.prompt_tokens or 1, question.output_tokens)
        for question, one in zip(questions, heard, strict=True)
    ]
    return sorted(found, key=lambda one: one.at_s)
