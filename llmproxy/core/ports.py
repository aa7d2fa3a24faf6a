"""The interfaces behind which the concrete policies sit; `app.py` alone knows which class is behind which."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple, Protocol, runtime_checkable

from llmproxy.core.backend import Backend, Status
from llmproxy.core.enums import plain
from llmproxy.core.outcome import Outcome
from llmproxy.core.request import Request


@plain
class Moment(Enum):
    """What a routing policy is told of a request it placed."""

    SENT = "sent"
    FIRST_TOKEN = "first_token"
    FINISHED = "finished"
    FAILED = "failed"


class RoutingPolicy(Protocol):
    """Picks one of the candidates. They are already eligible (healthy, with room) and never empty."""

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend: ...

    def observe(self, moment: Moment, backend: Backend, request: Request, now: float) -> None:
        """The life of a placed request, for policies that learn."""

    def forget(self, backend: Backend) -> None:
        """The backend left the pool: drop everything known of it."""


@runtime_checkable
class Explaining(Protocol):
    """A routing policy that can say how it weighs the candidates. Asking changes nothing, nor does a `pick` that
    nothing is sent after: both are asked when someone wants to know what would be decided."""

    def explain(self, candidates: Sequence[Backend], request: Request, now: float) -> list[dict[str, float]]:
        """For each candidate, in their order, its terms by name; `cost` (least wins) or `score` (most wins) is their
        sum."""


@runtime_checkable
class Timing(Protocol):
    """A routing policy that sees how fast backends compute prompts."""

    def seen_tokens_per_s(self, backend: Backend) -> float | None:
        """Prompt tokens a second; None while too little has been seen."""


@runtime_checkable
class SessionKeeping(Protocol):
    """A routing policy that keeps sessions together."""

    def sessions(self, now: float) -> Mapping[str, int]:
        """How many live at each backend that has any, by its id."""


class Estimate(NamedTuple):
    """What a prompt is expected to be and to take."""

    tokens: float
    prefill_s: float
    """Of what is not cached, where that is least."""
    cold_s: float
    """With nothing cached, alone on the fastest backend."""


@runtime_checkable
class Backlogged(Protocol):
    """A routing policy that knows what prompts cost. Asking changes nothing."""

    def backlog_s(self, backend: Backend, now: float) -> float:
        """Seconds of prompts sent there that await their first token."""

    def estimate(self, candidates: Sequence[Backend], request: Request) -> Estimate:
        """Of a prompt that is not placed yet."""


@plain
class ProbeResult(Enum):
    """What an active probe saw."""

    OK = "ok"
    REFUSED = "refused"
    """Connection refused: dead, or (vLLM) still loading."""
    LOADING = "loading"
    """503 while it loads (llama.cpp)."""
    SLEEPING = "sleeping"
    """200, but asleep or paused."""
    FAILED = "failed"
    """Timeout, or any other status."""


class HealthRegistry(Protocol):
    """Who may be given work. The one writer of `Backend.status` and `Backend.weight`."""

    def set_members(self, backends: Sequence[Backend], now: float) -> None: ...

    def candidates(self, now: float) -> Sequence[Backend]:
        """Eligible backends, or (panic) the ejected ones when none is; never loading, sleeping or draining ones."""

    def chosen(self, backend: Backend, now: float) -> bool:
        """A request goes there: takes the trial when the breaker is half-open. True when this request is the trial."""

    def observe(
        self,
        backend: Backend,
        outcome: Outcome,
        now: float,
        *,
        trial: bool | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """Passive health: how an attempt ended. Called once for each `chosen`, with its answer as `trial`; None takes
        the first outcome while a trial is out for the trial's. `retry_after_s` goes with BUSY."""

    def probed(self, backend: Backend, result: ProbeResult, now: float, reason: str = "") -> None:
        """Active health: what a probe saw. `reason` says it in words, for the log."""

    def hung(self, backend: Backend, is_hung: bool, now: float) -> None:
        """Health by progress: it has work and gets nowhere with it, or does again."""

    def ease_in(self, backend: Backend, now: float) -> None:
        """A newcomer to a pool at work begins with slow start."""

    def drain(self, backend: Backend, now: float) -> None: ...

    def undrain(self, backend: Backend, now: float) -> None: ...

    def status(self, backend: Backend, now: float) -> Status: ...


class RetryBudget(Protocol):
    """A share of the live requests that may be retries at the same time."""

    def request_started(self) -> None: ...

    def request_ended(self) -> None: ...

    def try_spend(self) -> bool:
        """Take one retry out of the budget; False when it is used up."""

    def give_back(self) -> None:
        """The retry taken with `try_spend` ended."""
