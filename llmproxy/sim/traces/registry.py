"""Which formats there are, and reading a file whose format is told from its content."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

from llmproxy.sim.trace import Arrival
from llmproxy.sim.traces.access_log import AccessLogFormat
from llmproxy.sim.traces.azure import AzureFormat
from llmproxy.sim.traces.burstgpt import BurstGptFormat
from llmproxy.sim.traces.columns import ColumnsFormat
from llmproxy.sim.traces.lines import Lines, TraceError, UnknownFormat
from llmproxy.sim.traces.mooncake import MooncakeFormat

_LOOKED_AT: Final = 20
"""Lines: a log that was cut or mixed with other output may begin with something else."""


class TraceFormat(Protocol):
    """A format. `read` gives the requests in the order of time, and is asked for no more than are wanted."""

    @property
    def name(self) -> str: ...

    def recognises(self, line: str) -> bool:
        """Whether this line (a head, or a record) is of this format. Never raises but ValueError."""

    def read(self, lines: Lines, pool: str | None) -> Iterator[Arrival]:
        """`pool`: the only one to read, where the format knows pools."""


FORMATS: Final[tuple[TraceFormat, ...]] = (
    ColumnsFormat(),
    MooncakeFormat(),
    AzureFormat(),
    BurstGptFormat(),
    AccessLogFormat(),
)


@dataclass(frozen=True, slots=True)
class Trace:
    """What was read. `more`: the file goes on behind the limit. `bad` lines could not be read."""

    name: str
    format: str
    arrivals: tuple[Arrival, ...]
    more: bool = False
    bad: int = 0
    first_bad: str = ""
    left_out: Mapping[str, int] = field(default_factory=Counter)
    """Good lines that are not replayed, by reason."""


def read_trace(path: Path, limit: int | None = None, pool: str | None = None) -> Trace:
    """The first `limit` requests in the file, from second 0 on. Raises `TraceError`."""
    with closing(Lines(path)) as lines:
        format = _format_of(lines)
        found = format.read(lines, pool)
        arrivals = sorted(islice(found, limit), key=lambda one: one.at_s)
        more = limit is not None and next(found, None) is not None
    if not arrivals:
        raise TraceError(f"{path}: no request to replay{_why_none(lines)}")
    first = arrivals[0].at_s
    return Trace(
        path.name,
        format.name,
        tuple(replace(one, at_s=one.at_s - first) for one in arrivals),
        more,
        lines.bad,
        lines.first_bad,
        lines.left_out,
    )


def _format_of(lines: Lines) -> TraceFormat:
    start = lines.peek(_LOOKED_AT)
    if not start:
        raise TraceError(f"{lines.path}: the file is empty")
    for line in start:
        for format in FORMATS:
            try:
                if format.recognises(line):
                    return format
            except ValueError:
                continue
    known = "; ".join(format.name for format in FORMATS)
    raise UnknownFormat(f"{lines.path}:1: in no format known here (known: {known})")


def _why_none(lines: Lines) -> str:
    reasons = [f"{count} {reason}" for reason, count in lines.left_out.items()]
    if lines.bad:
        reasons.append(f"{lines.bad} unreadable, the first: {lines.first_bad}")
    return f": {'; '.join(reasons)}" if reasons else ""
