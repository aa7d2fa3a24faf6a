"""Questions to an engine whose answers tell its times apart."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, TypeVar

from llmproxy.calibrate.engine import EngineClient, EngineError, Heard
from llmproxy.calibrate.fit import DecodeTime, PromptTime

T = TypeVar("T")

Tell = Callable[[str], None]
"""Is told what was found, in a line of words."""

_SHORTEST: Final = 16
_WORDS: Final = 100
"""In the prompt that shows how many tokens a word is."""
_SYLLABLES: Final = ("ba", "do", "fi", "gu", "ka", "le", "mo", "nu", "pa", "re", "si", "to", "va", "xe", "yo", "zu")
_CACHE_SPEEDUP: Final = 0.7
"""The second time, a prompt that was cached takes less than this share of what it took first."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is asked. `longest_s` bounds the time to a first token that a prompt may take."""

    prompt_tokens_max: int
    sequences_max: int
    longest_s: float = 8.0
    prompt_repeats: int = 5
    decode_repeats: int = 2
    decode_tokens: int = 32


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured. `caches`: a prompt's second time was quicker."""

    prompts: tuple[PromptTime, ...]
    decodes: tuple[DecodeTime, ...]
    caches: bool


class Probing:
    """Asks several engines at the same time; each answer counts as one of an engine of their kind."""

    def __init__(self, engines: Sequence[EngineClient], model: str, plan: Plan, tell: Tell, rng: random.Random) -> None:
        self._engines = engines
        self._model = model
        self._plan = plan
        self._tell = tell
        self._rng = rng
        self._tokens_per_word = 1.0

    async def run(self) -> Found:
        """Raises `EngineError`."""
        await self._warm_up()
        prompts = await self._prompts()
        caches = await self._caches(max(one.prompt_tokens for one in prompts))
        return Found(tuple(prompts), tuple(await self._decodes(prompts)), caches)

    async def _warm_up(self) -> None:
        """The first request of its kind is slow everywhere. And: how many tokens is a word?"""
        await self._all(_WORDS // 10, 4)
        counted = [one.prompt_tokens for one in await self._all(_WORDS, 4) if one.prompt_tokens is not None]
        if not counted:
            raise EngineError("the engine does not say how many tokens a prompt has (`usage` in its streams)")
        self._tokens_per_word = sum(counted) / len(counted) / _WORDS

    async def _prompts(self) -> list[PromptTime]:
        """Lone prompts of doubling length, each text new."""
        found: list[PromptTime] = []
        length = _SHORTEST
        while length <= self._plan.prompt_tokens_max:
            times = []
            for _ in range(self._plan.prompt_repeats):
                heard = await self._all(self._words(length), 1)
                times += [(one.prompt_tokens or length, one.ttft_s) for one in heard]
            tokens = round(sum(tokens for tokens, _ in times) / len(times))
            ttft_s = median(seconds for _, seconds in times)
            found.append(PromptTime(tokens, ttft_s))
            self._tell(f"a prompt of {tokens:,} tokens: {_ms(ttft_s)} to its first token")
            if ttft_s * 2 > self._plan.longest_s:
                break
            length *= 2
        return found

    async def _caches(self, tokens: int) -> bool:
        """Whether a prompt is quicker the second time."""

        async def twice(engine: EngineClient) -> tuple[Heard, Heard]:
            text = self._text_of(tokens)
            return await self._ask(engine, text, 1), await self._ask(engine, text, 1)

        pairs = await _together([twice(engine) for engine in self._engines])
        first = median(one.ttft_s for one, _ in pairs)
        second = median(other.ttft_s for _, other in pairs)
        self._tell(f"a prompt of {tokens:,} tokens: {_ms(first)}, and {_ms(second)} when asked again")
        return second < _CACHE_SPEEDUP * first

    async def _decodes(self, prompts: Sequence[PromptTime]) -> list[DecodeTime]:
        """Batches of doubling size with little context, then small ones with much of it."""
        found = []
        sequences = 1
        while sequences <= self._plan.sequences_max:
            found.append(await self._batch(sequences, _SHORTEST))
            sequences *= 2
        longest = max(one.prompt_tokens for one in prompts)
        with_much = [await self._batch(count, longest // 2) for count in (1, min(4, self._plan.sequences_max))]
        return found + with_much

    async def _batch(self, sequences: int, prompt_tokens: int) -> DecodeTime:
        times: list[DecodeTime] = []
        for _ in range(self._plan.decode_repeats):
            times += await _together([self._decode(engine, sequences, prompt_tokens) for engine in self._engines])
        seconds, kv_tokens = median(one.seconds for one in times), median(one.kv_tokens for one in times)
        self._tell(f"{sequences} decoding, {kv_tokens:,.0f} tokens in all: {_ms(seconds)} a step")
        return DecodeTime(sequences, kv_tokens, seconds)

    async def _decode(self, engine: EngineClient, sequences: int, prompt_tokens: int) -> DecodeTime:
        """The steps in which all of them decode: from the last one's first token to the first one's end."""
        tokens = self._plan.decode_tokens
        texts = [self._text_of(prompt_tokens) for _ in range(sequences)]
        if prompt_tokens > _SHORTEST and sequences > 1:
            # Their prompts are to be in the cache, so that all begin to decode at about the same time.
            for text in texts:
                await self._ask(engine, text, 1)
        # Time for the others' prompts to be computed.
        heard = await _together([self._ask(engine, text, tokens + 2 * sequences) for text in texts])
        begin = max(one.tokens_at[0] for one in heard)
        end = min(one.tokens_at[-1] for one in heard)
        steps, held = [], 0.0
        for one in heard:
            inside = [at for at in one.tokens_at if begin <= at <= end]
            before = sum(at < begin for at in one.tokens_at)
            if len(inside) >= 3:
                steps.append((inside[-1] - inside[0]) / (len(inside) - 1))
            held += (one.prompt_tokens or prompt_tokens) + before + len(inside) / 2
        if not steps:
            raise EngineError(f"{engine.url}: {sequences} requests at once were not computed together")
        if max(one.pieces for one in heard) < 3 or not median(steps) > 0:
            raise EngineError(f"{engine.url} does not stream: whole answers come in one piece")
        return DecodeTime(sequences, held, median(steps))

    async def _all(self, words: int, max_tokens: int) -> list[Heard]:
        """A new prompt to each engine."""
        return await _together([self._ask(engine, self._text(words), max_tokens) for engine in self._engines])

    async def _ask(self, engine: EngineClient, text: str, max_tokens: int) -> Heard:
        return await engine.ask(self._model, text, max_tokens)

    def _text_of(self, tokens: int) -> str:
        return self._text(self._words(tokens))

    def _words(self, tokens: int) -> int:
        return max(round(tokens / self._tokens_per_word), 1)

    def _text(self, words: int) -> str:
        """New each time, from its first word on, so that no cache knows any of it."""
        return " ".join("".join(self._rng.choices(_SYLLABLES, k=3)) for _ in range(words))


async def _together(work: Sequence[Awaitable[T]]) -> list[T]:
    return list(await asyncio.gather(*work))


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms"
