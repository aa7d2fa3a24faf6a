"""The candidate that will answer soonest: what waits there, what of this prompt it has yet to compute, and how fast it
has been seen to compute."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from llmproxy.core.backend import Backend
from llmproxy.core.ports import Moment
from llmproxy.core.prompt import BLOCK_BYTES
from llmproxy.core.request import Request
from llmproxy.policy.routing.prefix_index import PrefixIndex, capacity_blocks
from llmproxy.policy.routing.token_ratio import TokenRatio

_PRIOR_S: Final = 3.0
_HALF_LIFE_S: Final = 60.0
_INFINITE: Final = float("inf")


@dataclass(frozen=True, slots=True)
class ExpectedCostOptions:
    """The weights of the terms (see `ExpectedCost`), and what is believed before anything is known."""

    own: float = 1.0
    """Weight of this request's uncached prompt tokens."""
    delay: float = 0.15
    """Weight of each request in flight there, for each of this one's uncached tokens: while they are computed, the
    others' next tokens are late."""
    crowd: float = 0.05
    """Seconds that each request in flight counts for on a backend of first-guess speed."""
    alike: float = 0.1
    """Costs that exceed the least by no more than this share count as equal: they are not known any better, and an idle
    fleet is not to be one busy backend."""
    prefill_tokens_per_s: float = 10_000.0
    """First guess of a backend's prefill speed."""
    cache_tokens: int = 400_000
    """Size of a backend's KV cache until its metrics tell."""

    def __post_init__(self) -> None:
        if min(self.own, self.delay, self.crowd, self.alike) < 0:
            raise ValueError("own, delay, crowd and alike cannot be negative")
        if self.prefill_tokens_per_s <= 0 or self.cache_tokens < 1:
            raise ValueError("prefill_tokens_per_s and cache_tokens must be positive")


class _Book:
    """What is known of one backend. With n requests in flight, the cost of a request there is
    `waiting_s + token_s * ((n + 1) * crowd * R0 + uncached_tokens * (own + n * delay))`."""

    __slots__ = ("awaiting", "bit", "busy_s", "done", "pending", "seen_at", "token_s", "waiting_s")

    def __init__(self, bit: int) -> None:
        self.bit = bit
        self.pending = 0.0
        self.awaiting = 0
        self.done = 0.0
        self.busy_s = 0.0
        self.seen_at = 0.0
        self.waiting_s = 0.0
        self.token_s = 0.0


class _Placement:
    """The note on a request: where it went, and what was expected of it there."""

    __slots__ = ("awaits", "backend", "hit_blocks", "uncached")

    def __init__(self, uncached: float, hit_blocks: int) -> None:
        self.uncached = uncached
        self.hit_blocks = hit_blocks
        self.backend: Backend | None = None
        self.awaits = False


class ExpectedCost:
    """Least of `(P + own u + delay n u) / R + crowd (n + 1) R0 / R`; equals at random.

    P: prompt tokens sent there and not yet answered by a first token; u: this request's prompt tokens that are not in
    the prefix cache there; n: requests in flight; R: learned prefill speed, `(done + 3 Rb) / (busy + 3 s)`, at most Rb,
    over the time in which any request awaits its first token, both halved every 60 busy seconds and counted when a
    first token comes; R0: the first guess of it; Rb: R0, or the speed of the fastest backend where that is more, so
    that what has never been tried is not thought of as slow. Costs within a tenth of the least are equal.

    With the defaults that is the time to the first token, 0.15 of the time that others' tokens come later for it, and
    a little for each other's company.
    """

    __slots__ = (
        "_best",
        "_books",
        "_crowd",
        "_delay",
        "_fastest",
        "_index",
        "_limit",
        "_options",
        "_own",
        "_ratio",
        "_rng",
    )
    options_type: ClassVar = ExpectedCostOptions

    def __init__(self, options: ExpectedCostOptions, rng: random.Random) -> None:
        self._options = options
        self._own, self._delay = options.own, options.delay
        self._limit = 1.0 + options.alike
        self._crowd = options.crowd * options.prefill_tokens_per_s
        self._rng = rng
        self._index = PrefixIndex()
        self._ratio = TokenRatio()
        self._books: dict[Backend, _Book] = {}
        self._best = options.prefill_tokens_per_s
        self._fastest: _Book | None = None

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        prompt = request.prompt
        ratio = self._ratio.ratio(request.model)
        tokens = prompt.size * ratio
        block_tokens = BLOCK_BYTES * ratio
        depths = self._index.match(prompt.blocks)
        lowest = _INFINITE
        costs: list[tuple[float, Backend, float, int]] = []
        books, own, delay, crowd = self._books, self._own, self._delay, self._crowd
        for backend in candidates:
            book = books.get(backend)
            if book is None:
                book = self._open(backend)
            hits = depths.get(book.bit, 0) if depths else 0
            uncached = tokens - hits * block_tokens if hits else tokens
            if uncached < 1.0:
                uncached = 1.0
            others = backend.load.in_flight
            cost = book.waiting_s + book.token_s * ((others + 1) * crowd + uncached * (own + others * delay))
            if backend.weight != backend.spec.weight:
                # Slow start: it is to get so much less than its share.
                cost *= backend.spec.weight / backend.weight
            costs.append((cost, backend, uncached, hits))
            if cost < lowest:
                lowest = cost
        limit = lowest * self._limit
        equals = [(b, u, h) for c, b, u, h in costs if c <= limit]
        if len(equals) == 1:
            chosen, uncached, hits = equals[0]
            request.reason = "prefix" if hits else "load"
        else:
            chosen, uncached, hits = self._rng.choice(equals)
            request.reason = "tie"
        request.note = _Placement(uncached, hits)
        return chosen

    def explain(self, candidates: Sequence[Backend], request: Request, now: float) -> list[dict[str, float]]:
        """Seconds, tokens, and tokens a second."""
        ratio = self._ratio.ratio(request.model)
        tokens = request.prompt.size * ratio
        depths = self._index.match(request.prompt.blocks)
        told = []
        for backend in candidates:
            book = self._books.get(backend) or self._open(backend)
            cached = min(depths.get(book.bit, 0) * BLOCK_BYTES * ratio, tokens)
            uncached = max(tokens - cached, 1.0)
            slow_start, in_flight = backend.spec.weight / backend.weight, backend.load.in_flight
            terms = {
                "waiting_s": book.waiting_s * slow_start,
                "crowd_s": (in_flight + 1) * self._crowd * book.token_s * slow_start,
                "prompt_s": uncached * self._own * book.token_s * slow_start,
                "delay_s": uncached * in_flight * self._delay * book.token_s * slow_start,
            }
            told.append(
                {
                    "cost": sum(terms.values()),
                    **terms,
                    "cached_tokens": cached,
                    "uncached_tokens": uncached,
                    "pending_tokens": book.pending,
                    "in_flight": float(in_flight),
                    "prefill_tokens_per_s": 1 / book.token_s,
                }
            )
        return told

    def observe(self, moment: Moment, backend: Backend, request: Request, now: float) -> None:
        note = request.note
        if not isinstance(note, _Placement):
            return
        book = self._books.get(backend) or self._open(backend)
        if moment is Moment.SENT:
            note.backend, note.awaits = backend, True
            if not book.awaiting:
                book.seen_at = now
            book.pending += note.uncached
            book.awaiting += 1
            self._index.insert(backend, request.prompt.blocks, self._capacity(backend, request))
        elif note.backend is not backend:
            return
        else:
            if note.awaits:
                note.awaits = False
                self._pass_time(book, now)
                book.pending = max(book.pending - note.uncached, 0.0) if book.awaiting > 1 else 0.0
                book.awaiting -= 1
                if moment is not Moment.FAILED:
                    book.done += note.uncached
            if moment is Moment.FINISHED:
                self._learn(backend, request, note)
            if moment is not Moment.FIRST_TOKEN:
                note.backend = None
        self._price(book, now)

    def forget(self, backend: Backend) -> None:
        book = self._books.pop(backend, None)
        if book is not None and book is self._fastest:
            self._fastest, self._best = None, self._options.prefill_tokens_per_s
        self._index.forget(backend)

    def _open(self, backend: Backend) -> _Book:
        book = self._books[backend] = _Book(self._index.bit(backend))
        self._price(book, 0.0)
        return book

    def _pass_time(self, book: _Book, now: float) -> None:
        passed = now - book.seen_at
        book.seen_at = now
        if passed > 0:
            kept = 0.5 ** (passed / _HALF_LIFE_S)
            book.done *= kept
            book.busy_s = book.busy_s * kept + passed

    def _price(self, book: _Book, now: float) -> None:
        if self._compare(book):
            # Those of whom less is known are thought of differently now.
            for one in self._books.values():
                if not one.awaiting:
                    one.token_s = 1 / self._speed(one, 0.0)
        overdue_s = 0.0
        if book.awaiting:
            # All that waits there should have been answered by now.
            overdue_s = max(now - book.seen_at - book.pending / self._speed(book, 0.0), 0.0)
        book.token_s = 1 / self._speed(book, overdue_s)
        book.waiting_s = book.pending * book.token_s

    def _speed(self, book: _Book, overdue_s: float) -> float:
        """Rb until the backend has been seen to be slower."""
        return min((book.done + _PRIOR_S * self._best) / (book.busy_s + overdue_s + _PRIOR_S), self._best)

    def _compare(self, book: _Book) -> bool:
        """Keep Rb true: the speed of the fastest backend, or the first guess where that is more."""
        first_guess, before = self._options.prefill_tokens_per_s, self._best

        def seen(one: _Book) -> float:
            return (one.done + _PRIOR_S * first_guess) / (one.busy_s + _PRIOR_S)

        if seen(book) >= before:
            self._fastest, self._best = book, seen(book)
        elif book is self._fastest:
            self._fastest = max(self._books.values(), key=seen)
            self._best = max(seen(self._fastest), first_guess)
        return self._best != before

    def _capacity(self, backend: Backend, request: Request) -> int:
        return capacity_blocks(backend, self._options.cache_tokens, self._ratio.ratio(request.model))

    def _learn(self, backend: Backend, request: Request, note: _Placement) -> None:
        tokens, prompt = request.tokens, request.prompt
        if tokens is None or tokens.prompt is None:
            return
        self._ratio.learn(request.model, prompt.size, tokens.prompt)
        if tokens.cached is not None and note.hit_blocks and prompt.blocks:
            had = int(tokens.cached * len(prompt.blocks) / tokens.prompt) + 1
            if had < note.hit_blocks:
                # Evicted: so are other prompts' blocks, as this one has just been computed again, but which?
                self._index.insert(backend, prompt.blocks, self._capacity(backend, request))
