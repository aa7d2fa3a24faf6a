"""What a replay is judged by. Times are seconds; percentiles are by nearest rank: the smallest value that at least the
given share of all values does not exceed.

- TTFT: from a request's arrival (its wait in the proxy's queue counts) to its first token.
- TPOT: from the first token to the last, divided by the tokens after the first; a request of one token has none.
- Hit rate: prompt tokens found in a prefix cache, of all prompt tokens sent to engines.
- SLO attainment: requests that kept all limits, of all requests; one that was shed kept none.
- Goodput: requests that kept all limits, per second of trace time: from the first arrival to the last.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import ceil, inf, isfinite
from typing import Final

from llmproxy.config.units import parse_duration
from llmproxy.sim.fleet import Job
from llmproxy.sim.profile import Profile

SLO_DEFAULT: Final = "ttft=2s,ttft_scaled=1.5,tpot=100ms"


@dataclass(frozen=True, slots=True)
class Slo:
    """TTFT within the larger of `ttft_s` and `ttft_scaled` times what the prompt takes alone with nothing cached, on
    an engine of speed 1; TPOT within `tpot_s`."""

    ttft_s: float = inf
    ttft_scaled: float = 0.0
    tpot_s: float = inf

    def ttft_limit_s(self, prompt_tokens: int, profile: Profile) -> float:
        """The limit for a prompt of so many tokens."""
        if not self.ttft_scaled or self.ttft_s == inf:
            return self.ttft_s
        return max(self.ttft_s, self.ttft_scaled * profile.isolated_ttft_s(prompt_tokens))


def parse_slo(text: str) -> Slo:
    """From `ttft=2s,ttft_scaled=1.5,tpot=100ms`; what is left out is no limit. ValueError says what is wrong."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if name not in ("ttft", "ttft_scaled", "tpot") or not equals:
            raise ValueError(f"{part.strip()!r} is none of ttft=TIME, ttft_scaled=FACTOR, tpot=TIME")
        if name in found:
            raise ValueError(f"{name} is given twice")
        if name == "ttft_scaled":
            found[name] = _factor(value)
        else:
            found[name] = parse_duration(value)
    # Scaled alone: the larger of it and nothing.
    ttft_s = found.get("ttft", 0.0 if "ttft_scaled" in found else inf)
    return Slo(ttft_s, found.get("ttft_scaled", 0.0), found.get("tpot", inf))


def _factor(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = inf
    if not isfinite(factor) or factor < 0:
        raise ValueError(f"ttft_scaled: {text!r} is not a factor such as 1.5")
    return factor


@dataclass(frozen=True, slots=True)
class Score:
    """The figures of one replay. None where there is nothing to measure: no request was served, or none had a second
    token."""

    ttft_mean_s: float | None
    ttft_p50_s: float | None
    ttft_p90_s: float | None
    ttft_p99_s: float | None
    tpot_p99_s: float | None
    hit_rate: float
    slo_attainment: float
    goodput_rps: float
    shed: int


FIGURES: Final = tuple(field.name for field in fields(Score))


def score(jobs: Sequence[Job], slo: Slo, profile: Profile) -> Score:
    """The figures of a replay of at least one request. `profile` is that of an engine of speed 1."""
    served = [job for job in jobs if not job.shed]
    ttfts = sorted(ttft_s(job) for job in served)
    tpots = sorted(one for one in map(tpot_s, served) if one is not None)
    prompt_tokens = sum(job.prompt_tokens for job in served)
    good = sum(1 for job in served if _within(job, slo, profile))
    return Score(
        ttft_mean_s=sum(ttfts) / len(ttfts) if ttfts else None,
        ttft_p50_s=percentile(ttfts, 0.5),
        ttft_p90_s=percentile(ttfts, 0.9),
        ttft_p99_s=percentile(ttfts, 0.99),
        tpot_p99_s=percentile(tpots, 0.99),
        hit_rate=sum(job.cached_tokens for job in served) / prompt_tokens if prompt_tokens else 0.0,
        slo_attainment=good / len(jobs),
        goodput_rps=good / trace_s(jobs),
        shed=len(jobs) - len(served),
    )


def ttft_s(job: Job) -> float:
    """Of a job that was served."""
    assert job.first_token_at is not None
    return job.first_token_at - job.arrival.at_s


def tpot_s(job: Job) -> float | None:
    """Of a job that was served; None when it got a single token."""
    if job.generated < 2:
        return None
    assert job.first_token_at is not None
    assert job.done_at is not None
    return (job.done_at - job.first_token_at) / (job.generated - 1)


def trace_s(jobs: Sequence[Job]) -> float:
    """From the first arrival to the last; where all came at once, to the last answer's end."""
    first = min(job.arrival.at_s for job in jobs)
    last = max(job.arrival.at_s for job in jobs)
    if last == first:
        last = max((job.done_at for job in jobs if job.done_at is not None), default=first + 1.0)
    return last - first


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """By nearest rank; None of nothing."""
    if not ordered:
        return None
    # 0.9 * 10 is a little more than 9 in binary; ranks are whole.
    return ordered[max(ceil(round(share * len(ordered), 9)), 1) - 1]


def _within(job: Job, slo: Slo, profile: Profile) -> bool:
    tpot = tpot_s(job)
    if tpot is not None and tpot > slo.tpot_s:
        return False
    return ttft_s(job) <= slo.ttft_limit_s(job.prompt_tokens, profile)
