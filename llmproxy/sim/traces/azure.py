"""The Azure LLM inference traces: `TIMESTAMP,ContextTokens,GeneratedTokens`.

The time stamp is a date and time (2023: without, 2024: with its offset from UTC), or a number of milliseconds.
"""

from collections.abc import Iterator

from llmproxy.sim.trace import Arrival
from llmproxy.sim.traces.lines import Lines
from llmproxy.sim.traces.numbers import Columns, moment, names_in, seconds, tokens

_TIMES = ("timestamp", "timestamp_ms")


class AzureFormat:
    """See the module."""

    name = "Azure CSV"

    def recognises(self, line: str) -> bool:
        names = set(names_in(line))
        return {"contexttokens", "generatedtokens"} <= names and not names.isdisjoint(_TIMES)

    def read(self, lines: Lines, pool: str | None) -> Iterator[Arrival]:
        columns = Columns(lines.until(self.recognises))

        def parse(line: str) -> Arrival:
            row = columns.row(line)
            at = row["timestamp_ms"] if "timestamp_ms" in row else row["timestamp"]
            return Arrival(
                moment(at, "TIMESTAMP") if ":" in at else seconds(at, "TIMESTAMP") / 1e3,
                tokens(row["contexttokens"], "ContextTokens", 1),
                tokens(row["generatedtokens"], "GeneratedTokens"),
            )

        return lines.parsed(parse)
