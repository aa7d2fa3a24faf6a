"""What is said to the script in one round trip, and what it answers."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from llmproxy.core.limits import Kind, Limit, Pending, Taken
from llmproxy.stores.redis_link import Argument

_KINDS = {kind: b"%d" % kind for kind in Kind}
TOO_LATE = -2


class Gift:
    """A correction on its way: to be charged (positive) or given back."""

    __slots__ = ("amounts", "lease", "limits", "taken_at_ms")

    def __init__(self, limits: Sequence[Limit], amounts: Sequence[int], lease: str, taken_at_ms: int) -> None:
        self.limits = limits
        self.amounts = amounts
        self.lease = lease
        self.taken_at_ms = taken_at_ms


class Batch:
    """One round trip: the questions and the corrections in it. `sequence` numbers the corrections (0: there are
    none)."""

    __slots__ = ("asking", "giving", "repeated", "sent_at", "sequence", "tries")

    def __init__(
        self, asking: Sequence[Pending], giving: Sequence[Gift], sequence: int, sent_at: float, tries: int = 1
    ) -> None:
        self.asking = asking
        self.giving = giving
        self.sequence = sequence
        self.sent_at = sent_at
        self.tries = tries
        self.repeated = False

    def command(
        self,
        script: Sequence[Argument],
        prefix: str,
        sequence_key: str,
        last_moment_ms: int,
        ttl_ms: int,
        now_ms: int = 0,
    ) -> list[Argument]:
        """`script` is EVALSHA and a digest, or EVAL and the text. Keys get `prefix` put before them."""
        keys: list[Argument] = [sequence_key]
        values: list[Argument] = [now_ms, last_moment_ms, self.sequence, ttl_ms]
        # First what is known: what is asked is decided by it.
        for gift in self.giving:
            values += (b"1", len(gift.limits), gift.lease, gift.taken_at_ms)
            _say(keys, values, prefix, gift.limits, gift.amounts)
        for pending in self.asking:
            values += (b"0", len(pending.limits), pending.lease, b"0")
            _say(keys, values, prefix, pending.limits, pending.amounts)
        return [*script, len(keys), *chain(keys, values)]


def _say(
    keys: list[Argument], values: list[Argument], prefix: str, limits: Sequence[Limit], amounts: Sequence[int]
) -> None:
    for limit, amount in zip(limits, amounts, strict=True):
        keys.append(prefix + limit.key)
        values += (_KINDS[limit.kind], limit.size, limit.burst, amount)


def read_answer(at_ms: int, answer: Sequence[Any]) -> Taken | None:
    """What became of one question; None when it came too late and nothing was done."""
    if answer[0] == TOO_LATE:
        return None
    return Taken(at_ms, answer[2::2], answer[3::2], denied=answer[0], wait_ms=answer[1])
