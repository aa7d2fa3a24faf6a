"""Is an engine still getting anywhere? One of these for each backend.

An engine can hang while its server goes on: /health says 200, /metrics shows the last figures there were, requests are
accepted and never answered. What gives it away is that it has work and that nothing moves: neither its own token
counters nor any answer that it owes us.

It is hung once that has been so for `stalled_after_s`, and on top of it for as long as the prompts that we sent
there and that have had no first token may take, by the speed at which this backend has been seen to compute prompts: a
prompt of a million tokens moves nothing either until it is done. `_GENEROUS` times as long, because others may have
sent prompts as well, and prompts get slower with their length. Of an answer that comes whole nobody sees when its
prompt is done: it is an excuse for no longer than all that waits there may take together.

Only fresh gauges are judged by. Without any, and without counters, nobody is hung.
"""

from dataclasses import dataclass
from typing import Final

from llmproxy.core.backend import Gauges

_GENEROUS: Final = 4.0
_FIRST_GUESS: Final = 2000.0
"""Prompt tokens a second of a backend that has not been seen to compute any."""
_LEAST: Final = 200.0
_PRIOR_S: Final = 3.0
_HALF_LIFE_S: Final = 60.0
_BLIND: Final = 2.0
"""Ages of a gauge without any: who knows what was in the meantime."""
_NEVER: Final = float("-inf")
_NO_COUNTERS: Final = (None, None, None)


@dataclass(frozen=True, slots=True)
class Work:
    """What this proxy waits for from a backend."""

    requests: int = 0
    """Sent there whole, and waiting for it to compute: not those whose client does not read."""
    moved_at: float = _NEVER
    """When the newest piece of any of their answers came."""
    prompt_tokens: float = 0.0
    """Of the streams that have had no piece of an answer."""
    prefill_tokens_per_s: float | None = None
    """Learned elsewhere (by the routing policy); None: what is learned here counts."""
    wholes: tuple[tuple[float, float], ...] = ()
    """Of answers that come whole, and have not: when each was sent, and its prompt's tokens."""


class Progress:
    """`look` after each reading of the gauges; `hung` is the verdict."""

    __slots__ = (
        "_busy_s",
        "_computed",
        "_counters",
        "_done",
        "_had_prompts",
        "_newly_done",
        "_seen_at",
        "_since",
        "_waited_s",
        "hung",
    )

    def __init__(self) -> None:
        self.hung = False
        self._counters: tuple[float | None, ...] | None = None
        self._since = _NEVER
        """From when on nothing has moved, as far as is known."""
        # What the prefill speed is learned from.
        self._seen_at = _NEVER
        self._computed: float | None = None
        self._had_prompts = False
        self._waited_s = 0.0
        """For how long prompts have waited since the last one was done."""
        self._newly_done = 0.0
        self._done = 0.0
        self._busy_s = 0.0

    @property
    def prefill_tokens_per_s(self) -> float:
        """Seen here: prompt tokens computed in the time in which any prompt waited to be, old ones counting less. Too
        low rather than too high: answers that come whole seem to wait for their prompt for long."""
        return max((self._done + _PRIOR_S * _FIRST_GUESS) / (self._busy_s + _PRIOR_S), _LEAST)

    def look(self, gauges: Gauges, work: Work, stalled_after_s: float) -> bool:
        """Whether it is hung, as of `gauges.at`. The gauges must be fresh."""
        blind = gauges.at - self._seen_at > _BLIND * gauges.max_age_s
        prompt_tokens = self._uncomputed(gauges.at, work, stalled_after_s)
        self._learn(gauges, prompt_tokens)
        counters = (gauges.prompt_tokens, gauges.generation_tokens, gauges.heartbeat)
        # Being without work is no proof of health to one that hangs: it may just not say any more what it has.
        idle = not self.hung and not (gauges.running or gauges.waiting or work.requests)
        if counters != self._counters or idle or not stalled_after_s or counters == _NO_COUNTERS:
            self._counters = counters
            self.moved(gauges.at)
        elif work.moved_at > self._since:
            self.moved(work.moved_at)
        elif blind and not self.hung:
            self._since = gauges.at
        elif gauges.at - self._since >= stalled_after_s + self._prefill_s(prompt_tokens, work):
            self.hung = True
        return self.hung

    def moved(self, now: float) -> None:
        """Something moved, or was shown to (a probe that had it generate a token succeeded)."""
        self._since = now
        self.hung = False

    def _uncomputed(self, now: float, work: Work, stalled_after_s: float) -> float:
        """Prompt tokens that may be being computed."""
        together = work.prompt_tokens + sum([tokens for _, tokens in work.wholes])
        most_s = stalled_after_s + self._prefill_s(together, work)
        return work.prompt_tokens + sum([tokens for sent_at, tokens in work.wholes if now - sent_at < most_s])

    def _prefill_s(self, prompt_tokens: float, work: Work) -> float:
        return _GENEROUS * prompt_tokens / max(work.prefill_tokens_per_s or self.prefill_tokens_per_s, _LEAST)

    def _learn(self, gauges: Gauges, prompt_tokens: float) -> None:
        passed, self._seen_at = gauges.at - self._seen_at, gauges.at
        had_prompts, self._had_prompts = self._had_prompts, prompt_tokens > 0
        before, self._computed = self._computed, None
        if gauges.prompt_tokens is None:
            return
        self._computed = gauges.prompt_tokens - (gauges.prefix_hits or 0.0)
        if before is None or not had_prompts or not 0.0 < passed <= _BLIND * gauges.max_age_s:
            self._waited_s = self._newly_done = 0.0
            return
        self._waited_s += passed
        # Down it goes as well: hits are counted when a prompt begins, its tokens when it is done.
        self._newly_done += self._computed - before
        if self._computed > before:
            # Not before: standing still must not make it seem slow, and so excuse itself.
            kept = 0.5 ** (self._waited_s / _HALF_LIFE_S)
            self._done = max(self._done * kept + self._newly_done, 0.0)
            self._busy_s = self._busy_s * kept + self._waited_s
            self._waited_s = self._newly_done = 0.0
