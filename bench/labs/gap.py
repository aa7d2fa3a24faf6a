"""A stream's tokens pass one by one, when the engine gives them.

Pairs of streams on one engine, one of each pair through the proxy and one straight to it. The engine computes both in
the same steps and sends their tokens in the same moments, so what tells a pair apart is the proxy: how much later a
token came (delay), and how much longer the gap before it was than the same gap without a proxy. A proxy that buffers
shows up as gaps of nothing and gaps of several steps.
"""

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from bench.labs.base import Finding, Lab, ms, no_less_than, no_more_than, percentile
from bench.labs.failure import LabFailed
from bench.labs.stage import Stage

_PAIRS = 10
_TOKENS = 200
_ITL_MS = 20
_APART = 3
"""Most steps by which one of a pair may have begun later than the other."""


async def run(stage: Stage) -> list[Finding]:
    [engine] = await stage.engines(["--ttft", "50", "--itl", str(_ITL_MS)])
    proxy = await stage.proxy(stage.config([engine]))
    through = await stage.clients(proxy.port, _PAIRS)
    direct = await stage.clients(engine.port, _PAIRS)
    answers = [(one.chat(_TOKENS), other.chat(_TOKENS)) for one, other in zip(through, direct, strict=True)]
    delays: list[float] = []
    gaps: list[float] = []
    for pair in answers:
        await asyncio.gather(*(answer.over.wait() for answer in pair))
        for answer in pair:
            if (flaw := answer.flaw(_TOKENS, stream=True)) is not None:
                raise LabFailed(flaw)
        late_s = _delays(*(answer.token_times() for answer in pair))
        delays += late_s
        gaps += [after - before for before, after in pairwise(late_s)]
    return [
        no_less_than("gaps compared", len(gaps), _PAIRS * (_TOKENS - _APART - 1)),
        no_more_than("gap through the proxy less the direct one, p99", ms(percentile(gaps, 99)), 10, "ms"),
        no_more_than("delay of a token, p50", ms(percentile(delays, 50)), 5, "ms"),
        no_more_than("delay of a token, p99", ms(percentile(delays, 99)), 15, "ms"),
    ]


def _delays(through: Sequence[float], direct: Sequence[float]) -> list[float]:
    """How much later each token came through the proxy. Which tokens are of one step is told by the shift that brings
    the two series closest: a step is far longer than any delay."""

    def shifted(by: int) -> list[float]:
        return [one - other for one, other in zip(through[max(by, 0) :], direct[max(-by, 0) :], strict=False)]

    return min((shifted(by) for by in range(-_APART, _APART + 1)), key=lambda late_s: abs(median(late_s)))


LAB = Lab("gap", "A stream's tokens pass unbuffered", run)
