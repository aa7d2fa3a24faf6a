"""What `expected_cost` knows of each backend: the prompts that wait there, and how fast it has been seen to compute.

A stream's first token shows that its prompt is computed. So does an answer in which nothing is generated (`POOLED`).
Any other answer that comes whole (`stream: false`) shows nothing before its last token, which may be a minute later.
To take that for its first token would leave its prompt waiting here for a minute, and count the minute as time in which
the backend computed prompts. So of the prompts of such *wholes* it is believed that the engine computes them in the
order in which they came, beside those of streams, as vLLM's scheduler does:

1. While a stream awaits its first token, nobody guesses: when it comes, all wholes sent before that stream are
   computed. What of them was left to do when the stream came (at the speed R) counts as done with the stream's own
   tokens, for it took a part of the time that the stream waited.
2. While no stream does, they are computed one after the other, each for twice as long as it takes at the speed R: to
   think a prompt computed too late costs little, and is put right by the next first token or answer, too soon sends
   others into its way. That is worked out from `now` when a decision is made (`Book.drain`); there is no timer.
3. A whole answer that has come was computed, and so were those before it. One that failed is gone, by itself.

The end of a whole answer teaches nothing of R, and the time in which only wholes wait is none in which the backend is
seen to compute. What is believed of them while R is not known well mends itself: taken for computed too soon, they make
the next stream wait longer than what was believed to be before it, and R sinks; taken for computed too late, R rises.
"""

from collections import OrderedDict
from typing import Final

from llmproxy.core.request import Request
from llmproxy.policy.routing.confirmed import Confirmed

_HALF_LIFE_S: Final = 60.0
_PATIENCE: Final = 2.0
POOLED: Final = frozenset(
    {
        "/v1/embeddings",
        "/pooling",
        "/classify",
        "/score",
        "/v1/score",
        "/rerank",
        "/v1/rerank",
        "/v2/rerank",
    }
)
"""Paths whose answers are nothing but computed prompts."""


def shows_prefill(request: Request) -> bool:
    """Whether the first piece of its answer says that its prompt is computed."""
    return request.stream or request.path in POOLED


class Placement:
    """The note on a request: where it went, and what was expected of it there."""

    __slots__ = ("awaits", "book", "hit_blocks", "left", "number", "shows", "uncached")

    def __init__(self, uncached: float, hit_blocks: int, shows: bool) -> None:
        self.uncached = uncached
        self.hit_blocks = hit_blocks
        self.shows = shows
        """Its first token will be seen."""
        self.book: Book | None = None
        """Where it is."""
        self.awaits = False
        """Its prompt is thought to wait there, or to be computed just now."""
        self.left = 0.0
        """Of `uncached`, what is thought not to be computed yet."""
        self.number = 0
        """Of those sent there, in order."""


class Book:
    """One backend's. With n requests in flight, the cost of a request there is
    `token_s * ((pending + own * uncached_tokens) * (1 + delay * n) + crowd * R0 * (n + 1))`."""

    __slots__ = (
        "_ahead",
        "_credit",
        "_numbers",
        "_since",
        "awaiting",
        "bit",
        "busy_s",
        "confirmed",
        "done",
        "pending",
        "seen_at",
        "token_s",
        "wholes",
    )

    def __init__(self, bit: int) -> None:
        self.bit = bit
        self.confirmed = Confirmed()
        self.pending = 0.0
        """Tokens of all that wait; those of `wholes` as of the last `drain`."""
        self.awaiting = 0
        """Those whose first token will be seen."""
        self.wholes: OrderedDict[Placement, None] = OrderedDict()
        """The others, in the order in which they were sent."""
        self.done = 0.0
        self.busy_s = 0.0
        self.seen_at = 0.0
        self.token_s = 0.0
        self._since = 0.0
        """Up to when `wholes` are drained."""
        self._ahead = 0.0
        """Tokens of `wholes` that would be computed at the speed R, beyond those that are thought to be."""
        self._credit = 0.0
        """Tokens of wholes that were computed while a stream awaits its first token: done, once time is counted."""
        self._numbers = 0

    @property
    def drains(self) -> bool:
        """Whether `pending` shrinks as time passes."""
        return bool(self.wholes) and not self.awaiting

    def drain(self, now: float) -> bool:
        """Time has passed: what wholes that is thought to have computed. False when no more time will."""
        passed = now - self._since
        if passed > 0:
            self._since = now
            if self.awaiting:
                return False
            at_full_speed = passed / self.token_s
            tokens = at_full_speed / _PATIENCE
            ahead = at_full_speed - tokens
            first = next(iter(self.wholes), None)
            while first is not None and first.left <= tokens:
                tokens -= first.left
                self._leave(first)
                first = next(iter(self.wholes), None)
            if first is None:
                return False
            first.left -= tokens
            self.pending -= tokens
            self._ahead += ahead
            return True
        return self.drains

    def sent(self, note: Placement, now: float) -> None:
        """Its prompt is one more to compute."""
        self.drain(now)
        self._numbers += 1
        note.number, note.left, note.awaits = self._numbers, note.uncached, True
        self.pending += note.uncached
        if not note.shows:
            self.wholes[note] = None
            return
        if not self.awaiting:
            self.seen_at = now
        self.awaiting += 1

    def answered(self, note: Placement, now: float) -> None:
        """The prompt of one that `awaits` is computed, and so are the wholes before it."""
        if note.shows:
            self._pass_time(now)
            self.done += note.uncached
        else:
            self.drain(now)
            if not note.awaits:
                return
        while self.wholes and (whole := next(iter(self.wholes))).number < note.number:
            self._shown(whole, note.shows)
        self._shown(note, note.shows)

    def lost(self, note: Placement, now: float) -> None:
        """One that `awaits` is no more, computed or not."""
        if note.shows:
            self._pass_time(now)
        else:
            self.drain(now)
        if note.awaits:
            self._leave(note)

    def _shown(self, note: Placement, counted: bool) -> None:
        """It is computed. `counted`: the time that it took has just been counted."""
        if not note.shows:
            # What R had time for before the stream came took none of the stream's.
            before = min(self._ahead, note.left)
            self._ahead -= before
            if counted:
                self.done += note.left - before
            elif self.awaiting:
                self._credit += note.left - before
        self._leave(note)

    def _leave(self, note: Placement) -> None:
        note.awaits = False
        if note.shows:
            self.awaiting -= 1
        else:
            del self.wholes[note]
        if not self.wholes:
            self._ahead = 0.0
        # Nothing waits: no rounding either.
        self.pending = max(self.pending - note.left, 0.0) if self.awaiting or self.wholes else 0.0
        note.left = 0.0

    def _pass_time(self, now: float) -> None:
        """A stream waits no longer: count the time."""
        passed = now - self.seen_at
        self.seen_at = self._since = now
        if passed > 0:
            kept = 0.5 ** (passed / _HALF_LIFE_S)
            self.done *= kept
            self.busy_s = self.busy_s * kept + passed
        self.done += self._credit
        self._credit = 0.0
