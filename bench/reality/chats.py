"""Chats whose turns share their beginnings, and the engines' own count of what their prefix caches were good for."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final

from llmproxy.calibrate.engine import EngineClient, session

_ENGLISH: Final = """
about after again all also always and answer because before between both came could day does even every first found from
give good great hand have head here high home house into just keep kind know large last left life like line little live
long look made make many more most much must name never new night number often old only other over part people place
right same saw say school sea set should show side small some sound spell still story such take tell than that the them
"""
"""Words, so that bytes and tokens are in the proportion that they have in chats."""
_OPENING_WORDS: Final = 1500
"""More than a block of the routing's prefix index."""
_TURN_WORDS: Final = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of all turns of all chats. `hit_rate`: prompt tokens that the engines found cached, of all they looked up."""

    hit_rate: float
    ttft_mean_s: float
    ttft_p50_s: float
    turns: int


async def chat(
    proxy_url: str,
    engine_urls: Sequence[str],
    key: str,
    model: str,
    *,
    chats: int = 12,
    turns: int = 3,
    at_once: int = 4,
    pause_s: float = 0.2,
) -> Outcome:
    """Hold the chats through the proxy, `at_once` at a time, each turn a piece longer than the one before it, after
    a pause of `pause_s` in the mean. Without one, whoever comes back finds a place where it just left one, under any
    policy. Engines must be idle, and their caches empty."""
    async with session() as http:
        engines = [EngineClient(http, url, key) for url in engine_urls]
        proxy = EngineClient(http, proxy_url)
        before = [await engine.gauges() for engine in engines]
        talking = asyncio.Semaphore(at_once)
        ttfts: list[float] = []

        async def hold(number: int) -> None:
            rng, vocabulary = random.Random(f"chat {number}"), _ENGLISH.split()
            text = " ".join(rng.choices(vocabulary, k=_OPENING_WORDS))
            async with talking:
                for _ in range(turns):
                    heard = await proxy.ask(model, text, 4 + rng.randrange(8))
                    ttfts.append(heard.ttft_s)
                    text += " " + " ".join(rng.choices(vocabulary, k=_TURN_WORDS))
                    await asyncio.sleep(rng.random() * 2 * pause_s)

        await asyncio.gather(*(hold(number) for number in range(chats)))
        after = [await engine.gauges() for engine in engines]
    pairs = list(zip(before, after, strict=True))
    hits = sum((b.prefix_hits or 0) - (a.prefix_hits or 0) for a, b in pairs)
    queries = sum((b.prefix_queries or 0) - (a.prefix_queries or 0) for a, b in pairs)
    return Outcome(hits / max(queries, 1), fmean(ttfts), median(ttfts), len(ttfts))
