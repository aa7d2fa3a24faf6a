"""From measured times to a profile. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

from llmproxy.calibrate.least_squares import errors, solve
from llmproxy.sim.profile import Profile

_BENDS: Final = (16, 32, 64, 128, 256, 512, 1024)
_NO_BEND: Final = 1 << 30
_WORTH_A_BEND: Final = 0.7
"""A line with a bend has two more factors, so it always fits better; this much better it has to be."""
_GOOD_ENOUGH: Final = 0.02
"""A mean error for which nobody looks for a bend."""


class FitError(ValueError):
    """The measurements do not determine a profile; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class PromptTime:
    """A lone prompt, nothing of it cached: seconds to its first token."""

    prompt_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class DecodeTime:
    """`sequences` that decode together, and hold `kv_tokens` in all: seconds of a step."""

    sequences: int
    kv_tokens: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Size:
    """How large the engine is."""

    kv_blocks: int
    block_size: int
    max_batched_tokens: int
    max_num_seqs: int


@dataclass(frozen=True, slots=True)
class Fit:
    """`prompt_errors` and `decode_errors` are by what share the profile misses each measurement, in their order."""

    profile: Profile
    prompt_errors: tuple[float, ...]
    decode_errors: tuple[float, ...]

    @property
    def error(self) -> float:
        """Root mean square of the relative errors."""
        return _size(self.prompt_errors + self.decode_errors)

    @property
    def worst(self) -> float:
        """The largest relative error."""
        return max(abs(one) for one in self.prompt_errors + self.decode_errors)


def fit(name: str, size: Size, prompts: Sequence[PromptTime], decodes: Sequence[DecodeTime]) -> Fit:
    """The profile that comes closest to what was measured. Raises `FitError`."""
    if len({one.prompt_tokens for one in prompts}) < 3:
        raise FitError("prompts of at least three lengths are needed")
    if len({one.sequences for one in decodes}) < 2:
        raise FitError("decoding batches of at least two sizes are needed")
    if min([one.seconds for one in prompts] + [one.seconds for one in decodes]) <= 0:
        raise FitError("a time of nothing was measured")
    best = _fit(name, size, prompts, decodes, _NO_BEND)
    if best.error <= _GOOD_ENOUGH:
        return best
    steps = sorted({chunk for one in prompts for chunk, _ in _chunks(one.prompt_tokens, size.max_batched_tokens)})
    bent = [
        _fit(name, size, prompts, decodes, bend)
        for bend in _BENDS
        # On either side two sizes at least, or there is no line.
        if sum(step <= bend for step in steps) >= 2 and sum(step > bend for step in steps) >= 2
    ]
    straight, best = best, min([best, *bent], key=lambda one: one.error)
    return best if best.error < _WORTH_A_BEND * straight.error else straight


def _fit(name: str, size: Size, prompts: Sequence[PromptTime], decodes: Sequence[DecodeTime], bend: int) -> Fit:
    rows = [_prompt_row(one.prompt_tokens, size.max_batched_tokens, bend) for one in prompts]
    rows += [_decode_row(one, bend) for one in decodes]
    values = [one.seconds for one in prompts] + [one.seconds for one in decodes]
    factors = solve(rows, values)
    request, base, token, base_above, token_above, kv, attention, sequence = factors
    is_bent = bend < _NO_BEND
    profile = Profile(
        name=name,
        kv_blocks=size.kv_blocks,
        block_size=size.block_size,
        max_batched_tokens=size.max_batched_tokens,
        max_num_seqs=size.max_num_seqs,
        overhead_s=0.0,
        base_s=base,
        token_s=token,
        bend_tokens=bend,
        base_above_s=base_above if is_bent else base,
        token_above_s=token_above if is_bent else token,
        kv_s=kv,
        attention_s=attention,
        sequence_s=sequence,
        ttft_s=request,
    )
    missed = errors(rows, values, factors)
    return Fit(profile, tuple(missed[: len(prompts)]), tuple(missed[len(prompts) :]))


def _prompt_row(prompt_tokens: int, max_batched_tokens: int, bend: int) -> list[float]:
    """Request, base and token of each line, KV, attention, sequence."""
    row = [1.0] + [0.0] * 7
    for chunk, computed in _chunks(prompt_tokens, max_batched_tokens):
        line = 3 if chunk > bend else 1
        row[line] += 1
        row[line + 1] += chunk
        row[6] += chunk * computed
    return row


def _decode_row(one: DecodeTime, bend: int) -> list[float]:
    row = [0.0] * 8
    line = 3 if one.sequences > bend else 1
    row[line], row[line + 1] = 1.0, float(one.sequences)
    row[5], row[7] = one.kv_tokens, float(one.sequences)
    return row


def _chunks(prompt_tokens: int, max_batched_tokens: int) -> list[tuple[int, int]]:
    """The steps of a lone prompt: tokens computed in it, and in all when it ends."""
    ends = [*range(max_batched_tokens, prompt_tokens, max_batched_tokens), prompt_tokens]
    return [(end - begin, end) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


def _size(shares: Sequence[float]) -> float:
    return sqrt(sum(share * share for share in shares) / len(shares))
