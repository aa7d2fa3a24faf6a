"""A calibration from beginning to end."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Final

from llmproxy.calibrate.engine import EngineClient, EngineError, Facts, session
from llmproxy.calibrate.fit import Fit, FitError, Size, fit
from llmproxy.calibrate.probes import Found, Plan, Probing, Tell

_ROOM: Final = 64
_MODEL_LEN: Final = 4096
"""Believed of an engine that does not tell how long its context window is."""
_BLOCK: Final = 16
_BATCHED_TOKENS: Final = 2048
_SEQUENCES: Final = 256
_LOOKS: Final = 8
_LOOK_S: Final = 0.25
_PROBED_TOKENS_MAX: Final = 32768
_PROBED_SEQUENCES_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be calibrated. None: as the engine says, or else as vLLM has it by default."""

    urls: tuple[str, ...]
    key: str = ""
    model: str | None = None
    name: str | None = None
    max_num_seqs: int | None = None
    max_batched_tokens: int | None = None
    longest_s: float = 8.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Calibration:
    """`assumed` says in words what nobody told."""

    fit: Fit
    found: Found
    assumed: tuple[str, ...]


async def calibrate(wanted: Wanted, tell: Tell) -> Calibration:
    """Raises `EngineError` in words the user can act on."""
    async with AsyncExitStack() as stack:
        # A session an engine: streams of one are not to wait for connections of another.
        sessions = [await stack.enter_async_context(session()) for _ in wanted.urls]
        engines = [EngineClient(http, url, wanted.key) for http, url in zip(sessions, wanted.urls, strict=True)]
        facts = await _alike(engines, wanted.model)
        size, assumed = size_of(facts, wanted)
        tell(
            f"{facts.model}: {size.kv_blocks:,} blocks of {size.block_size} tokens, {size.max_batched_tokens:,} tokens"
            f" a step, {size.max_num_seqs} sequences"
        )
        await _idle(engines)
        plan = Plan(
            prompt_tokens_max=min((facts.max_model_len or _MODEL_LEN), facts.kv_tokens, _PROBED_TOKENS_MAX) - _ROOM,
            sequences_max=min(size.max_num_seqs, _PROBED_SEQUENCES_MAX),
            longest_s=wanted.longest_s,
        )
        found = await Probing(engines, facts.model, plan, tell, random.Random(wanted.seed)).run()  # noqa: S311
        await _idle(engines)
    if not found.caches:
        assumed = (*assumed, "that prefixes are cached, as the model does; but a prompt took as long when asked again")
    try:
        return Calibration(fit(wanted.name or facts.model, size, found.prompts, found.decodes), found, assumed)
    except FitError as error:
        raise EngineError(f"what was measured makes no profile: {error}") from None


def size_of(facts: Facts, wanted: Wanted) -> tuple[Size, tuple[str, ...]]:
    """The engine's size, and what of it was assumed."""
    assumed = []
    block = facts.block_size
    if block is None:
        block = _BLOCK
        assumed.append(f"blocks of {block} tokens (its metrics do not say)")
    sequences = wanted.max_num_seqs or facts.max_num_seqs
    if sequences is None:
        sequences = _SEQUENCES
        assumed.append(f"{sequences} sequences at a time (not told; --max-num-seqs says otherwise)")
    tokens = wanted.max_batched_tokens or facts.max_batched_tokens
    if tokens is None:
        tokens = _BATCHED_TOKENS
        assumed.append(f"{tokens:,} tokens a step (not told; --max-batched-tokens says otherwise)")
    return Size(max(facts.kv_tokens // block, 1), block, tokens, sequences), tuple(assumed)


async def _alike(engines: Sequence[EngineClient], model: str | None) -> Facts:
    first = await engines[0].facts(model)
    for other in engines[1:]:
        facts = await other.facts(model)
        # Of memory each has what is left.
        fewest = min(first.kv_tokens, facts.kv_tokens)
        first, facts = replace(first, kv_tokens=fewest), replace(facts, kv_tokens=fewest)
        if facts != first:
            raise EngineError(f"{engines[0].url} and {other.url} are not alike: {first} and {facts}")
    return first


async def _idle(engines: Sequence[EngineClient]) -> None:
    for engine in engines:
        for _ in range(_LOOKS):
            gauges = await engine.gauges()
            busy = (gauges.running or 0) + (gauges.waiting or 0)
            if not busy:
                break
            # Its metrics may be behind.
            await asyncio.sleep(_LOOK_S)
        else:
            raise EngineError(f"{engine.url} has {busy:.0f} requests of others: calibrate an engine that is idle")
