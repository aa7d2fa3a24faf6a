"""The engine: who computes in which step, and how long the step lasts. See the package docstring for the model."""

from collections import OrderedDict
from dataclasses import dataclass
from math import inf
from typing import Generic, Protocol, TypeVar

from llmproxy.sim.blocks import BlockPool
from llmproxy.sim.sequence import Phase, Sequence

S = TypeVar("S", bound=Sequence)


class StepTime(Protocol):
    """How long a step lasts, in seconds."""

    def __call__(self, decoding: int, kv_tokens: int, prefill_tokens: int, attended: int) -> float:
        """`decoding` sequences that get a token, and the `kv_tokens` they read; `prefill_tokens` of prompts, and the
        product of each chunk's tokens and the context they attend to, summed up in `attended`."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The size and speed of an engine."""

    max_num_seqs: int = 256
    """Sequences computed at the same time; the others wait."""
    kv_blocks: int = 8192
    block_size: int = 16
    """Tokens in a KV block."""
    ttft_s: float = 0.05
    """The fixed part of the time to the first token."""
    itl_s: float = 0.02
    """Length of a step that decodes one sequence."""
    prefill_s_per_token: float = 50e-6
    batch_slowdown: float = 0.005
    """How much longer a step gets with each further sequence that decodes, as a share of `itl_s`."""
    max_batched_tokens: int = 8192
    """Tokens computed in one step, decoded and prefilled together."""
    step_time: StepTime | None = None
    """Instead of the line that `itl_s`, `batch_slowdown` and `prefill_s_per_token` draw."""

    def __post_init__(self) -> None:
        if self.max_num_seqs < 1 or self.max_batched_tokens < 1:
            raise ValueError("an engine needs room for at least one sequence and one token a step")
        if min(self.ttft_s, self.itl_s, self.prefill_s_per_token, self.batch_slowdown) < 0:
            raise ValueError("an engine's times cannot be negative")


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
        self._paused = False
        self._waiting: OrderedDict[S, None] = OrderedDict()
        self._running: dict[S, None] = {}
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
        return sum(1 for sequence in self._running if sequence.phase is Phase.DECODING)

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

    def _admit(self, now: float) -> None:
        while self._waiting and len(self._running) < self.options.max_num_seqs:
            sequence = next(iter(self._waiting))
            table = self.blocks.open(sequence.blocks, sequence.tokens)
            if table is None:
                return
            del self._waiting[sequence]
            self._running[sequence] = None
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
        prefilling: list[S] = []
        for sequence in self._running:
            if sequence.ready_at > now:
                self._wake_at = min(self._wake_at, sequence.ready_at)
            elif sequence.phase is Phase.DECODING:
                self._decodes.append(sequence)
            else:
                prefilling.append(sequence)
        decoding = len(self._decodes)
        budget, chunks, attended = max(options.max_batched_tokens - decoding, 1), 0, 0
        for sequence in prefilling:
            chunk = min(sequence.tokens - sequence.computed, budget - chunks)
            if chunk <= 0:
                break
            self._prefills.append((sequence, chunk))
            chunks += chunk
            attended += chunk * (sequence.computed + chunk)
        if not decoding and not chunks:
            return
        if options.step_time is not None:
            kv_tokens = sum([sequence.prompt_tokens + sequence.generated for sequence in self._decodes])
            self._step_ends_at = now + options.step_time(decoding, kv_tokens, chunks, attended)
        else:
            decode_s = options.itl_s * (1 + options.batch_slowdown * (decoding - 1)) if decoding else 0.0
            self._step_ends_at = now + decode_s + chunks * options.prefill_s_per_token

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
                sequence.phase = Phase.DECODING
                if sequence.first_token_at is None:
                    self.prompt_tokens += sequence.prompt_tokens
                self._produce(sequence, now, produced)
        for sequence in decodes:
            # Aborted or preempted since the step began: its token is lost.
            if sequence.phase is Phase.DECODING:
                self._produce(sequence, now, produced)
        self._admit(now)

    def _produce(self, sequence: S, now: float, produced: list[S]) -> None:
        if sequence.first_token_at is None:
            sequence.first_token_at = now
        if sequence.output_tokens:
            sequence.generated += 1
            self.generation_tokens += 1
        produced.append(sequence)
        if sequence.generated >= sequence.output_tokens:
            self._leave(sequence)
            return
        if sequence.pace > 1:
            sequence.ready_at = now + (sequence.pace - 1) * self.options.itl_s
        table = sequence.table
        while table is not None and not self.blocks.grow(table, sequence.tokens):
            self._preempt(next(reversed(self._running)))
            table = sequence.table

    def _leave(self, sequence: S) -> None:
        del self._running[sequence]
        self._release(sequence)
        sequence.phase = Phase.DONE

    def _preempt(self, sequence: S) -> None:
        del self._running[sequence]
        self._release(sequence)
        sequence.phase = Phase.WAITING
        sequence.computed = 0
        self._waiting[sequence] = None
        self._waiting.move_to_end(sequence, last=False)
        self.preemptions += 1

    def _release(self, sequence: S) -> None:
        table, sequence.table = sequence.table, None
        if table is None:
            return
        if sequence.phase is Phase.DECODING:
            # The newest token has been sampled, not computed.
            self.blocks.seal(table, sequence.blocks, sequence.tokens - 1)
        self.blocks.close(table)
