"""Faults on demand: the grammar of a SPEC, and which of its faults a request meets.

    SPEC  = "" or fault ["," fault ...]
    fault = kind ["=" value] [":" probability] ["*" count] ["@" scope]

`probability` (0 to 1, default 1) is drawn for each request; after `count` hits the fault is spent; `scope` is `models`
(the default: every route that needs the engine), `health` (`/health` and `/ping`), or `all` (everything but
`/emulator/...`). Examples: `status=503+2`, `die_after=5:0.1`, `reset*1`, `status=500@health`, `slow=4,comments`.

How a request may begin (the first that hits decides):

| kind                  | the request                                                                             |
|-----------------------|-----------------------------------------------------------------------------------------|
| `hang`                | is accepted and never answered                                                          |
| `reset`               | ends with a RST before any byte of the answer                                           |
| `reset_after_headers` | gets a 200 head, then a RST                                                             |
| `stall`               | gets a 200 head, then nothing                                                           |
| `sleep`               | the same, and the server says that it sleeps (`/is_sleeping`, `vllm:engine_sleep_state`) |
| `garbage`             | gets bytes that are not HTTP                                                            |
| `status=CODE[+S]`     | gets that status (400 to 599), with `Retry-After: S` when given                         |

How a generation may end, once N tokens are written (N = 0: when the first would be); a non-streaming answer is in
brackets (the first that hits decides):

| kind                  | the answer                                                                              |
|-----------------------|-----------------------------------------------------------------------------------------|
| `die_after=N`         | ends with a RST (the same, before its head)                                             |
| `abort_after=N`       | ends with `finish_reason: "abort"` and `[DONE]` (200 with the text so far)              |
| `error_event_after=N` | ends with an error event and `[DONE]` (status 500)                                      |
| `truncate_after=N`    | ends cleanly framed, with no `finish_reason` and no `[DONE]` (body cut, then FIN)       |
| `stall_after=N`       | goes silent and stays open (nothing at all)                                             |

And besides: `slow=FACTOR` (first token and gaps take FACTOR times as long), `comments[=MS]` (a `: keep-alive` comment
at once and every MS, default 100, until the first token), `surplus` (an unsolicited second response follows the
answer), and, as a standing fault only, `refuse[=SECONDS]` (stop listening and close idle connections, until the fault
is replaced or the time is over).
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Literal


class FaultError(ValueError):
    """A SPEC that cannot be understood; the message says which part and what is expected."""


class Scope(Enum):
    """Which routes a fault is for, and which of them a request is on."""

    MODELS = "models"
    HEALTH = "health"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the tables above. `value` says whether a number is expected after `=`."""

    name: str
    role: Literal["begin", "end", "shape", "listener"]
    value: Literal["none", "optional", "needed"] = "none"
    least: float = 0.0
    default: float = 0.0
    whole: bool = False


KINDS = {
    kind.name: kind
    for kind in (
        Kind("hang", "begin"),
        Kind("reset", "begin"),
        Kind("reset_after_headers", "begin"),
        Kind("stall", "begin"),
        Kind("sleep", "begin"),
        Kind("garbage", "begin"),
        Kind("status", "begin", "needed"),
        Kind("die_after", "end", "needed", whole=True),
        Kind("abort_after", "end", "needed", whole=True),
        Kind("error_event_after", "end", "needed", whole=True),
        Kind("truncate_after", "end", "needed", whole=True),
        Kind("stall_after", "end", "needed", whole=True),
        Kind("slow", "shape", "needed", least=1.0),
        Kind("comments", "shape", "optional", least=1.0, default=100.0),
        Kind("surplus", "shape"),
        Kind("refuse", "listener", "optional"),
    )
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One parsed fault. `value` is the number after `=` (for `status` the code); 0 where there is none."""

    kind: str
    value: float = 0.0
    probability: float = 1.0
    count: int | None = None
    scope: Scope = Scope.MODELS
    retry_after_s: int | None = None

    @property
    def role(self) -> str:
        return KINDS[self.kind].role


@dataclass(frozen=True, slots=True)
class Plan:
    """What one request meets."""

    begin: Fault | None = None
    end: Fault | None = None
    slow: float = 1.0
    comments_s: float | None = None
    surplus: bool = False


def parse_faults(spec: str) -> tuple[Fault, ...]:
    """The faults of a SPEC. Raises FaultError."""
    if not spec.strip():
        return ()
    return tuple(_parse_fault(part.strip()) for part in spec.split(","))


def _parse_fault(text: str) -> Fault:
    rest, _, scope_text = text.partition("@")
    rest, star, count_text = rest.partition("*")
    rest, colon, probability_text = rest.partition(":")
    name, equals, value_text = rest.partition("=")
    kind = KINDS.get(name)
    if kind is None:
        raise FaultError(f"unknown fault {name!r} in {text!r}; known: {', '.join(KINDS)}")
    scope = _parse_scope(text, scope_text) if "@" in text else Scope.MODELS
    probability = _number(text, "probability", probability_text, 0.0, 1.0) if colon else 1.0
    count = int(_number(text, "count", count_text, 1.0, whole=True)) if star else None
    if kind.name == "refuse" and (star or colon or "@" in text):
        raise FaultError(f"{text!r}: refuse is about the listener and takes no probability, count or scope")
    if not equals:
        if kind.value == "needed":
            raise FaultError(f"{text!r}: {name} needs a value, as in {name}={'503' if name == 'status' else '3'}")
        return Fault(name, kind.default, probability, count, scope)
    if kind.value == "none":
        raise FaultError(f"{text!r}: {name} takes no value")
    if kind.name == "status":
        code_text, plus, wait_text = value_text.partition("+")
        code = _number(text, "status", code_text, 400, 599, whole=True)
        wait_s = int(_number(text, "Retry-After", wait_text, 0, whole=True)) if plus else None
        return Fault(name, code, probability, count, scope, wait_s)
    value = _number(text, "value", value_text, kind.least, whole=kind.whole)
    return Fault(name, value, probability, count, scope)


def _parse_scope(text: str, scope: str) -> Scope:
    try:
        return Scope(scope)
    except ValueError:
        raise FaultError(f"{text!r}: unknown scope {scope!r}; known: models, health, all") from None


def _number(text: str, what: str, number: str, least: float, most: float = 1e9, whole: bool = False) -> float:
    try:
        value = float(number)
    except ValueError:
        raise FaultError(f"{text!r}: {what} must be a number, not {number!r}") from None
    if not least <= value <= most or (whole and value != int(value)):
        bounds = f"at least {least:g}" if most == 1e9 else f"from {least:g} to {most:g}"
        raise FaultError(f"{text!r}: {what} must be a {'whole ' if whole else ''}number {bounds}, not {number!r}")
    return value


class FaultBoard:
    """The standing faults. `plan` is asked once for each request and draws what it meets."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._standing: list[tuple[Fault, int | None]] = []
        self.spec = ""

    def set(self, spec: str) -> tuple[Fault, ...]:
        """Replace the standing faults. Raises FaultError and changes nothing."""
        faults = parse_faults(spec)
        self._standing = [(fault, fault.count) for fault in faults]
        self.spec = spec.strip()
        return faults

    @property
    def refusal(self) -> Fault | None:
        """The standing `refuse`; its value is for how long, 0 for good."""
        return next((fault for fault, _ in self._standing if fault.role == "listener"), None)

    @property
    def asleep(self) -> bool:
        """Whether `sleep` stands, for certain and without end."""
        return any(
            fault.kind == "sleep" and fault.probability == 1.0 and left is None for fault, left in self._standing
        )

    def plan(self, scope: Scope, own_spec: str | None) -> Plan:
        """What a request on a route of `scope` meets; its own SPEC (a header) comes first. Raises FaultError."""
        met: list[Fault] = []
        if own_spec:
            own = parse_faults(own_spec)
            if any(fault.role == "listener" for fault in own):
                raise FaultError("refuse cannot be asked for by a request")
            met += [fault for fault in own if self._drawn(fault)]
        for index, (fault, left) in enumerate(self._standing):
            here = fault.scope is Scope.ALL or fault.scope is scope
            if here and fault.role != "listener" and left != 0 and self._drawn(fault):
                met.append(fault)
                self._standing[index] = (fault, None if left is None else left - 1)
        return _plan(met)

    def _drawn(self, fault: Fault) -> bool:
        return fault.probability >= 1.0 or self._rng.random() < fault.probability


def _plan(met: Iterable[Fault]) -> Plan:
    first: dict[str, Fault] = {}
    for fault in met:
        first.setdefault(fault.kind if fault.role == "shape" else fault.role, fault)
    slow, comments = first.get("slow"), first.get("comments")
    return Plan(
        begin=first.get("begin"),
        end=first.get("end"),
        slow=slow.value if slow else 1.0,
        comments_s=comments.value / 1000 if comments else None,
        surplus="surplus" in first,
    )
