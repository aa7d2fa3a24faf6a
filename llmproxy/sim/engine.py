"""The engine: who computes in which step, and how long the step lasts. See the package docstring for the model."""

from collections import OrderedDict
from math import inf
from typing import Generic, TypeVar

from llmproxy.sim.blocks import BlockPool
from llmproxy.sim.options import EngineOptions, StepTime
from llmproxy.sim.published import NOTHING, Published
from llmproxy.sim.sequence import Phase, Sequence

S = TypeVar("S", bound=Sequence)


class Engine(Generic[S]):
    """Continuous batching. Call `advance` at `due`; `submit` and `abort` at any time."""

    def __init__(self, options: EngineOptions) -> None:
        self.options = options
        self.blocks = BlockPool(options.kv_blocks, options.block_size)
        self.preemptions = 0
        self.prefix_queries = 0
        self.prefix_hits = 0
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.published: Published = NOTHING
        self._passed_over = 0
        """Who is here and gets nothing in the step under way; who comes meanwhile is not among them."""
        self._step_s: StepTime = options.step_time or self._line
        self._paused = False
        self._waiting: OrderedDict[S, None] = OrderedDict()
        self._running: dict[S, None] = {}
        """In the order in which they got their places, as are the two parts of it."""
        self._prefilling: dict[S, None] = {}
        self._decoding: dict[S, None] = {}
        self._kv_tokens = 0
        """Of the sequences that decode."""
        self._places = 0
        self._paced = 0
        """Running sequences with a pace of their own."""
        self._stuck_at = -1
        """What `BlockPool.openings` was when the first in the queue did not fit."""
        self._wake_at = inf
        self._step_ends_at: float | None = None
        self._prefills: list[tuple[S, int]] = []
        self._decodes: list[S] = []

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def decoding(self) -> int:
        return len(self._decoding)

    @property
    def untouched(self) -> int:
        """Running sequences of which no step has computed anything yet. vLLM counts these as waiting: it gives a
        sequence its place in the first step that has tokens to spare for it."""
        begun = sum(1 for sequence, _ in self._prefills if sequence.phase is Phase.PREFILL)
        return len(self._prefilling) - begun

    @property
    def kv_usage(self) -> float:
        """Share of the KV blocks that sequences hold, 0 to 1."""
        return self.blocks.used / self.blocks.total

    @property
    def paused(self) -> bool:
        """A paused (sleeping) engine takes sequences in and computes nothing."""
        return self._paused

    def pause(self) -> None:
        self._paused = True

    def resume(self, now: float) -> None:
        if self._paused:
            self._paused = False
            self._admit(now)
            self._wake_at = now if self._running else inf

    @property
    def due(self) -> float | None:
        """When to call `advance` next; None while there is nothing to do."""
        if self._paused:
            return None
        if self._step_ends_at is not None:
            return self._step_ends_at
        return None if self._wake_at == inf else self._wake_at

    def fits(self, sequence: S) -> bool:
        """Whether the sequence could ever run here."""
        return self.blocks.blocks_for(sequence.prompt_tokens + sequence.output_tokens) <= self.blocks.total

    def submit(self, sequence: S, now: float) -> None:
        """Take a sequence in. ValueError when its blocks exceed the whole cache (see `fits`)."""
        if not self.fits(sequence):
            raise ValueError("the sequence needs more KV blocks than the engine has")
        sequence.submitted_at = now
        self._waiting[sequence] = None
        self._admit(now)

    def abort(self, sequence: S, now: float) -> bool:
        """Drop a sequence at once; False when it is not (or no longer) here."""
        if sequence in self._running:
            self._leave(sequence)
        elif sequence in self._waiting:
            del self._waiting[sequence]
            self._stuck_at = -1
            sequence.phase = Phase.DONE
        else:
            return False
        self._admit(now)
        return True

    def advance(self, now: float) -> list[S]:
        """End the step that is due and begin the next. Returns who got a token (or, generating none, was computed);
        those whose `phase` is DONE are finished."""
        if self._paused:
            return []
        produced: list[S] = []
        if self._step_ends_at is not None and now >= self._step_ends_at:
            self._end_step(now, produced)
        if self._step_ends_at is None:
            self._begin_step(now)
        return produced

    def coast(self, before: float) -> None:
        """End, and begin, all steps that end `before` then and in which every decoding sequence gets one more token and
        nothing else happens: for drivers that do not ask for each token."""
        ends_at, decodes = self._step_ends_at, self._decodes
        if ends_at is None or ends_at >= before or self._prefills or self._prefilling or self._paced or self._paused:
            return
        if len(decodes) != len(self._decoding):
            return
        # Who waits goes on waiting: such steps make no room.
        decoding, kv_tokens, step_s = len(decodes), self._kv_tokens, self._step_s
        steps, left = 0, min([sequence.milestone - sequence.generated for sequence in decodes]) - 1
        while steps < left and ends_at < before:
            steps += 1
            kv_tokens += decoding
            ends_at += step_s(decoding, kv_tokens, 0, 0)
        if steps:
            self._step_ends_at = ends_at
            self._wake_at = inf
            self._kv_tokens = kv_tokens
            self.generation_tokens += steps * decoding
            for sequence in decodes:
                sequence.generated += steps
            waiting = self._passed_over if steps == 1 else len(self._waiting)
            self.published = Published(decoding, waiting, self.blocks.used)
            self._passed_over = len(self._waiting)

    def _is_stuck(self) -> bool:
        """Whether nobody who waits could get a place now."""
        return (
            not self._waiting
            or len(self._running) >= self.options.max_num_seqs
            or self._stuck_at == self.blocks.openings
        )

    def _admit(self, now: float) -> None:
        while not self._is_stuck():
            sequence = next(iter(self._waiting))
            table = self.blocks.open(sequence.blocks, sequence.tokens)
            if table is None:
                self._stuck_at = self.blocks.openings
                return
            del self._waiting[sequence]
            self._running[sequence] = None
            self._prefilling[sequence] = None
            self._places += 1
            self._paced += sequence.pace > 1
            sequence.place = self._places
            sequence.table = table
            sequence.phase = Phase.PREFILL
            sequence.computed = len(table.shared) * self.options.block_size
            sequence.ready_at = now
            if sequence.admitted_at is None:
                self._admit_first(sequence, now)
            self._wake_at = min(self._wake_at, sequence.ready_at)

    def _admit_first(self, sequence: S, now: float) -> None:
        options, uncached = self.options, sequence.prompt_tokens - sequence.computed
        sequence.admitted_at = now
        sequence.cached_tokens = sequence.computed
        sequence.ready_at += options.ttft_s * sequence.pace
        sequence.ready_at += (sequence.pace - 1) * uncached * options.prefill_s_per_token
        self.prefix_queries += sequence.prompt_tokens
        self.prefix_hits += sequence.computed

    def _begin_step(self, now: float) -> None:
        self._wake_at = inf
        options = self.options
        self._decodes = list(self._decoding)
        if self._paced:
            self._decodes = [sequence for sequence in self._decodes if self._is_ready(sequence, now)]
        decoding = len(self._decodes)
        budget, chunks, attended = max(options.max_batched_tokens - decoding, 1), 0, 0
        for sequence in self._prefilling:
            if not self._is_ready(sequence, now) or chunks >= budget:
                continue
            chunk = min(sequence.tokens - sequence.computed, budget - chunks)
            self._prefills.append((sequence, chunk))
            chunks += chunk
            attended += chunk * (sequence.computed + chunk)
        if not decoding and not chunks:
            return
        self._passed_over = len(self._waiting) + len(self._prefilling) - len(self._prefills)
        kv_tokens = self._kv_tokens
        if decoding < len(self._decoding):
            kv_tokens = sum([sequence.prompt_tokens + sequence.generated for sequence in self._decodes])
        self._step_ends_at = now + self._step_s(decoding, kv_tokens, chunks, attended)

    def _is_ready(self, sequence: S, now: float) -> bool:
        if sequence.ready_at <= now:
            return True
        self._wake_at = min(self._wake_at, sequence.ready_at)
        return False

    def _line(self, decoding: int, kv_tokens: int, prefill_tokens: int, attended: int) -> float:
        """The `StepTime` of an engine that was given none."""
        options = self.options
        decode_s = options.itl_s * (1 + options.batch_slowdown * (decoding - 1)) if decoding else 0.0
        return decode_s + prefill_tokens * options.prefill_s_per_token

    def _end_step(self, now: float, produced: list[S]) -> None:
        prefills, self._prefills = self._prefills, []
        decodes, self._decodes = self._decodes, []
        self._step_ends_at = None
        for sequence, chunk in prefills:
            if sequence.phase is not Phase.PREFILL or sequence.table is None:
                continue
            sequence.computed += chunk
            self.blocks.seal(sequence.table, sequence.blocks, sequence.computed)
            if sequence.computed == sequence.tokens:
                self._begin_decoding(sequence, now)
                produced.append(sequence)
        tokens, decoding_phase = 0, Phase.DECODING
        for sequence in decodes:
            # Aborted or preempted since the step began: its token is lost.
            if sequence.phase is decoding_phase:
                tokens += 1
                sequence.generated = generated = sequence.generated + 1
                produced.append(sequence)
                if generated >= sequence.milestone:
                    self._pass_milestone(sequence)
        self.generation_tokens += tokens
        self._kv_tokens += tokens
        if self._paced:
            for sequence in produced:
                sequence.ready_at = now + (sequence.pace - 1) * self.options.itl_s
        self._publish(prefills)
        self._admit(now)

    def _publish(self, prefills: list[tuple[S, int]]) -> None:
        begun = sum([sequence.phase is Phase.PREFILL for sequence, _ in prefills])
        ahead = 0
        for sequence in self._prefilling:
            table = sequence.table
            if table is not None:
                ahead += len(table.shared) + table.private - self.blocks.blocks_for(sequence.computed)
        self.published = Published(len(self._decoding) + begun, self._passed_over, self.blocks.used - ahead)

    def _begin_decoding(self, sequence: S, now: float) -> None:
        """The prompt is computed: here is its first token."""
        if sequence.first_token_at is None:
            sequence.first_token_at = now
            self.prompt_tokens += sequence.prompt_tokens
        if sequence.output_tokens:
            sequence.generated += 1
            self.generation_tokens += 1
        del self._prefilling[sequence]
        if self._decoding and next(reversed(self._decoding)).place > sequence.place:
            later = [other for other in self._decoding if other.place > sequence.place]
            self._decoding[sequence] = None
            for other in later:
                self._decoding[other] = self._decoding.pop(other)
        self._decoding[sequence] = None
        self._kv_tokens += sequence.tokens
        sequence.phase = Phase.DECODING
        self._pass_milestone(sequence)

    def _pass_milestone(self, sequence: S) -> None:
        """It is at its end, or may need a block."""
        if sequence.generated >= sequence.output_tokens:
            self._leave(sequence)
            return
        table = sequence.table
        while table is not None and not self.blocks.grow(table, sequence.tokens):
            self._preempt(next(reversed(self._running)))
            table = sequence.table
        if table is not None:
            room = (len(table.shared) + table.private) * self.options.block_size
            sequence.milestone = min(sequence.output_tokens, room - sequence.prompt_tokens + 1)

    def _leave(self, sequence: S) -> None:
        self._release(sequence)
        sequence.phase = Phase.DONE

    def _preempt(self, sequence: S) -> None:
        self._release(sequence)
        sequence.phase = Phase.WAITING
        sequence.computed = 0
        self._waiting[sequence] = None
        self._waiting.move_to_end(sequence, last=False)
        self._stuck_at = -1
        self.preemptions += 1

    def _release(self, sequence: S) -> None:
        """Take its place and its blocks."""
        del self._running[sequence]
        self._paced -= sequence.pace > 1
        table, sequence.table = sequence.table, None
        if sequence.phase is Phase.DECODING:
            del self._decoding[sequence]
            self._kv_tokens -= sequence.tokens
            if table is not None:
                # The newest token has been sampled, not computed.
                self.blocks.seal(table, sequence.blocks, sequence.tokens - 1)
        else:
            del self._prefilling[sequence]
        if table is not None:
            self.blocks.close(table)
