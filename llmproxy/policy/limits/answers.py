"""What a client is told of its limits: the `x-ratelimit-*` headers, and why it was refused."""

from collections.abc import Sequence
from typing import Final

from llmproxy.core.errors import ProxyError, RateLimited, Unavailable
from llmproxy.core.limits import MICRO, Kind, Limit, Taken, Unit

_BUCKET: Final = Kind.BUCKET
_EVERY = {Kind.BUCKET: "a minute", Kind.DAY: "a day", Kind.MONTH: "a month", Kind.LEASES: "at the same time"}


def duration(ms: int) -> str:
    """As OpenAI's headers write it: `120ms`, `6s`, `1m2s`, `3h0m5s`. Rounded up, so that waiting so long is enough."""
    if ms < 1000:
        return f"{ms}ms" if ms > 0 else "0s"
    seconds = -(-ms // 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


Shown = tuple[int, int, int]
"""The limit, what remains of it, and in how many ms it is as new."""


def tightest(limits: Sequence[Limit], taken: Taken, unit: Unit) -> Shown | None:
    """Of the buckets of `unit`, the one with the least in it: it is the one that counts. `taken` may tell of fewer or
    of more than `limits`."""
    least: Shown | None = None
    remaining, reset_ms = taken.remaining, taken.reset_ms
    for position in range(min(len(limits), len(remaining))):
        limit = limits[position]
        if limit.unit is unit and limit.kind is _BUCKET and (least is None or remaining[position] < least[1]):
            least = (limit.burst, remaining[position], reset_ms[position])
    return least


def header_lines(requests: Shown | None, tokens: Shown | None) -> bytes:
    """Lines for an answer's head; none where nothing is limited."""
    text = ""
    if requests is not None:
        text = (
            f"x-ratelimit-limit-requests: {requests[0]}\r\nx-ratelimit-remaining-requests: {requests[1]}\r\n"
            f"x-ratelimit-reset-requests: {duration(requests[2])}\r\n"
        )
    if tokens is not None:
        text += (
            f"x-ratelimit-limit-tokens: {tokens[0]}\r\nx-ratelimit-remaining-tokens: {tokens[1]}\r\n"
            f"x-ratelimit-reset-tokens: {duration(tokens[2])}\r\n"
        )
    return text.encode()


def header_pairs(lines: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The same as pairs, for answers that the proxy makes itself."""
    pairs = [line.partition(b": ") for line in lines.split(b"\r\n") if line]
    return tuple((name, value) for name, _, value in pairs)


def refusal(limits: Sequence[Limit], taken: Taken, headers: tuple[tuple[bytes, bytes], ...]) -> ProxyError:
    """The error to answer with."""
    retry_after_s = max(1, -(-taken.wait_ms // 1000))
    if taken.failed:
        return Unavailable("limits cannot be checked right now", code="limits_unavailable", retry_after_s=retry_after_s)
    limit = limits[taken.denied]
    what = "requests" if limit.unit is Unit.CONCURRENCY else limit.unit.value
    whose = f"{_EVERY[limit.kind]} for this {limit.scope.value}"
    if limit.unit is Unit.MONEY:
        message = f"the budget of {limit.size / MICRO:g} {whose} is used up"
    else:
        message = f"rate limit reached: {limit.size} {what} {whose}"
    if limit.kind is not Kind.LEASES:
        message += f"; try again in {duration(taken.wait_ms)}"
    return RateLimited(message, unit=what, retry_after_s=retry_after_s, headers=headers)
