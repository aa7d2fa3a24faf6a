"""The candidate that will answer soonest: what waits there, what of this prompt it has yet to compute, and how fast it
has been seen to compute."""

import random
from collections.abc import Mapping, Sequence
from math import inf
from typing import ClassVar, Final

from llmproxy.core.backend import Backend
from llmproxy.core.ports import Estimate, Moment
from llmproxy.core.prompt import BLOCK_BYTES
from llmproxy.core.request import Request
from llmproxy.policy.routing.adapters import IDLE, MISSING, Adapters
from llmproxy.policy.routing.books import Book, Placement, shows_prefill
from llmproxy.policy.routing.expected_cost_options import ExpectedCostOptions
from llmproxy.policy.routing.prefix_index import PrefixIndex, capacity_blocks
from llmproxy.policy.routing.recent_sessions import RecentSessions
from llmproxy.policy.routing.token_ratio import TokenRatio

_PRIOR_S: Final = 3.0


class ExpectedCost:
    """Least of `(P + own u) (1 + delay n) / R + crowd (n + 1) R0 / R`; equals at random.

    P: prompt tokens sent there and not yet answered by a first token (`books` says what is believed of answers that
    come whole, and show none); u: this request's prompt tokens that are not in the prefix cache there; n: requests in
    flight; R: learned prefill speed, `(done + 3 Rb) / (busy + 3 s)`, at most Rb, over the time in which any stream
    awaits its first token, both halved every 60 busy seconds and counted when a first token comes; R0: the first guess
    of it; Rb: R0, or the speed of the fastest backend where that is more, so that what has never been tried is not
    thought of as slow. Costs within a twentieth of the least are equal.

    A product, because a sum does not fit all traffic: where answers are long and prompts short, n is large and decides
    a sum alone, and requests wait for seconds at a backend that happens to have few.

    Where only others have the LoRA adapter asked for, the time to get it is added.
    """

    __slots__ = (
        "_adapter_s",
        "_adapters",
        "_alike",
        "_best",
        "_books",
        "_crowd",
        "_delay",
        "_draining",
        "_fastest",
        "_index",
        "_options",
        "_own",
        "_ratio",
        "_recent",
        "_rng",
    )
    options_type: ClassVar = ExpectedCostOptions

    def __init__(self, options: ExpectedCostOptions, rng: random.Random) -> None:
        self._options = options
        self._own, self._delay = options.own, options.delay
        self._alike = 1.0 + options.alike
        self._crowd = options.crowd * options.prefill_tokens_per_s
        self._rng = rng
        self._index = PrefixIndex()
        self._ratio = TokenRatio()
        self._adapters = Adapters()
        self._recent = RecentSessions()
        self._adapter_s = {IDLE: options.adapter_idle, MISSING: options.adapter_missing}
        self._books: dict[Backend, Book] = {}
        self._draining: dict[Book, None] = {}
        """Those of whose pending prompts time takes away (see `books`)."""
        self._best = options.prefill_tokens_per_s
        self._fastest: Book | None = None

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        if self._draining:
            self._drain(now)
        prompt = request.prompt
        ratio = self._ratio.ratio(request.model)
        tokens = prompt.size * ratio
        block_tokens = BLOCK_BYTES * ratio
        depths = self._index.match(prompt.blocks)
        lacking = self._adapters.lacking(request.model, candidates, now)
        book_of, own, delay, crowd, alike = self._books.get, self._own, self._delay, self._crowd, self._alike
        all_of_it = own * max(tokens, 1.0)
        limit = least = inf
        near: list[tuple[float, Backend]] = []
        for backend in candidates:
            book = book_of(backend) or self._open(backend)
            tokens_to_do = book.pending + all_of_it
            if depths and (hits := depths.get(book.bit, 0)):
                tokens_to_do = book.pending + own * max(tokens - hits * block_tokens * book.confirmed.share, 1.0)
            others = backend.load.in_flight
            cost = book.token_s * (tokens_to_do * (1.0 + delay * others) + crowd * (others + 1))
            if backend.weight != backend.spec.weight:
                # Slow start: it is to get so much less than its share.
                cost *= backend.spec.weight / backend.weight
            if lacking:
                cost += self._adapter_s.get(lacking.get(backend, 0), 0.0)
            if cost <= limit:
                near.append((cost, backend))
                if cost < least:
                    least, limit = cost, cost * alike
        equals = [backend for cost, backend in near if cost <= limit]
        chosen = equals[0] if len(equals) == 1 else self._rng.choice(equals)
        book = self._books[chosen]
        hits = depths.get(book.bit, 0) if depths else 0
        if len(equals) > 1:
            request.reason = "tie"
        else:
            request.reason = "prefix" if hits else "load"
        uncached = max(tokens - hits * block_tokens * book.confirmed.share, 1.0)
        request.note = Placement(uncached, hits, shows_prefill(request))
        return chosen

    def explain(self, candidates: Sequence[Backend], request: Request, now: float) -> list[dict[str, float]]:
        """Seconds, tokens, and tokens a second."""
        self._drain(now)
        ratio = self._ratio.ratio(request.model)
        tokens = request.prompt.size * ratio
        depths = self._index.match(request.prompt.blocks)
        lacking = self._adapters.lacking(request.model, candidates, now)
        told = []
        for backend in candidates:
            book = self._books.get(backend) or self._open(backend)
            cached = min(depths.get(book.bit, 0) * BLOCK_BYTES * ratio * book.confirmed.share, tokens)
            uncached = max(tokens - cached, 1.0)
            in_flight = backend.load.in_flight
            token_s = book.token_s * backend.spec.weight / backend.weight
            waiting_s, prompt_s = book.pending * token_s, self._own * uncached * token_s
            terms = {
                "waiting_s": waiting_s,
                "prompt_s": prompt_s,
                "delay_s": (waiting_s + prompt_s) * self._delay * in_flight,
                "crowd_s": (in_flight + 1) * self._crowd * token_s,
                "adapter_s": self._adapter_s.get(lacking.get(backend, 0), 0.0),
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

    def backlog_s(self, backend: Backend, now: float) -> float:
        """Seconds of prompts sent there that await their first token."""
        book = self._books.get(backend)
        if book is None:
            return 0.0
        book.drain(now)
        return book.pending * book.token_s

    def estimate(self, candidates: Sequence[Backend], request: Request) -> Estimate:
        """Of a prompt that is not placed yet."""
        ratio = self._ratio.ratio(request.model)
        tokens = request.prompt.size * ratio
        depths = self._index.match(request.prompt.blocks)
        books = [self._books.get(backend) or self._open(backend) for backend in candidates]
        worths = [depths.get(book.bit, 0) * BLOCK_BYTES * ratio * book.confirmed.share for book in books]
        uncached_s = [max(tokens - worth, 1.0) * book.token_s for book, worth in zip(books, worths, strict=True)]
        return Estimate(tokens, min(uncached_s), tokens * min(book.token_s for book in books))

    def observe(self, moment: Moment, backend: Backend, request: Request, now: float) -> None:
        note = request.note
        if not isinstance(note, Placement):
            return
        book = self._books.get(backend)
        if moment is Moment.SENT:
            book = note.book = book or self._open(backend)
            book.sent(note, now)
            self._read(book, backend)
            self._recent.turn(request.prompt.blocks, note.hit_blocks, backend, now)
            self._index.insert(backend, request.prompt.blocks, self._capacity(backend, request))
        elif book is None or note.book is not book:
            return
        else:
            if note.awaits:
                if moment is Moment.FAILED:
                    book.lost(note, now)
                else:
                    book.answered(note, now)
            if moment is Moment.FINISHED:
                self._learn(book, backend, request, note)
            if moment is not Moment.FIRST_TOKEN:
                note.book = None
        self._price(book, now)
        if book.drains:
            self._draining[book] = None
        elif self._draining:
            self._draining.pop(book, None)

    def sessions(self, now: float) -> Mapping[str, int]:
        return self._recent.live(now)

    def forget(self, backend: Backend) -> None:
        book = self._books.pop(backend, None)
        if book is not None:
            self._draining.pop(book, None)
            if book is self._fastest:
                self._fastest, self._best = None, self._options.prefill_tokens_per_s
        self._index.forget(backend)
        self._adapters.forget(backend)
        self._recent.forget(backend)

    def seen_tokens_per_s(self, backend: Backend) -> float | None:
        """As R, without what was believed before; None until that counts for less than what was seen."""
        book = self._books.get(backend)
        return book.done / book.busy_s if book is not None and book.busy_s >= _PRIOR_S else None

    def _open(self, backend: Backend) -> Book:
        book = self._books[backend] = Book(self._index.bit(backend))
        self._price(book, 0.0)
        return book

    def _drain(self, now: float) -> None:
        for book in [book for book in self._draining if not book.drain(now)]:
            del self._draining[book]

    def _price(self, book: Book, now: float) -> None:
        if self._compare(book):
            # Those of whom less is known are thought of differently now.
            for one in self._books.values():
                if not one.awaiting:
                    one.drain(now)
                    one.token_s = 1 / self._speed(one, 0.0)
        overdue_s = 0.0
        if book.awaiting:
            # All that waits there should have been answered by now.
            overdue_s = max(now - book.seen_at - book.pending / self._speed(book, 0.0), 0.0)
        book.token_s = 1 / self._speed(book, overdue_s)

    def _speed(self, book: Book, overdue_s: float) -> float:
        """Rb until the backend has been seen to be slower."""
        return min((book.done + _PRIOR_S * self._best) / (book.busy_s + overdue_s + _PRIOR_S), self._best)

    def _compare(self, book: Book) -> bool:
        """Keep Rb true: the speed of the fastest backend, or the first guess where that is more."""
        first_guess, before = self._options.prefill_tokens_per_s, self._best

        def seen(one: Book) -> float:
            return (one.done + _PRIOR_S * first_guess) / (one.busy_s + _PRIOR_S)

        if seen(book) >= before:
            self._fastest, self._best = book, seen(book)
        elif book is self._fastest:
            self._fastest = max(self._books.values(), key=seen)
            self._best = max(seen(self._fastest), first_guess)
        return self._best != before

    def _capacity(self, backend: Backend, request: Request) -> int:
        return capacity_blocks(backend, self._options.cache_tokens, self._ratio.ratio(request.model))

    def _read(self, book: Book, backend: Backend) -> None:
        """What its gauges say of its cache."""
        if book.confirmed.read(backend.gauges):
            self._index.empty(backend)

    def _learn(self, book: Book, backend: Backend, request: Request, note: Placement) -> None:
        tokens, prompt = request.tokens, request.prompt
        if tokens is None or tokens.prompt is None:
            return
        self._ratio.learn(request.model, prompt.size, tokens.prompt)
        self._read(book, backend)
        expected = tokens.prompt * min(note.hit_blocks * BLOCK_BYTES / max(prompt.size, 1), 1.0)
        if tokens.cached is None:
            book.confirmed.untold(tokens.prompt, expected)
            return
        book.confirmed.told(tokens.prompt, expected, tokens.cached)
        if note.hit_blocks and prompt.blocks:
            had = int(tokens.cached * len(prompt.blocks) / tokens.prompt) + 1
            if had < note.hit_blocks:
                # Evicted: so are other prompts' blocks, as this one has just been computed again, but which?
                self._index.insert(backend, prompt.blocks, self._capacity(backend, request))
