"""BurstGPT: `Timestamp` in seconds, `Model`, `Request tokens`, `Response tokens`, and columns that are not needed.

A request with no response token failed, and is not replayed.
"""

from collections.abc import Iterator

from llmproxy.sim.trace import Arrival
from llmproxy.sim.traces.lines import LeftOut, Lines
from llmproxy.sim.traces.numbers import Columns, names_in, seconds, tokens


class BurstGptFormat:
    """See the module."""

    name = "BurstGPT CSV"

    def recognises(self, line: str) -> bool:
        return {"timestamp", "request tokens", "response tokens"} <= set(names_in(line))

    def read(self, lines: Lines, pool: str | None) -> Iterator[Arrival]:
        columns = Columns(lines.until(self.recognises))

        def parse(line: str) -> Arrival:
            row = columns.row(line)
            output = tokens(row["response tokens"], "Response tokens")
            if not output:
                raise LeftOut("failed then")
            return Arrival(
                seconds(row["timestamp"], "Timestamp"), tokens(row["request tokens"], "Request tokens", 1), output
            )

        return lines.parsed(parse)
