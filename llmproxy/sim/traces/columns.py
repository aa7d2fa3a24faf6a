"""This project's own CSV: `timestamp_ms,input_tokens,output_tokens[,block512_hash_ids]`.

Ids are separated by spaces, `a-b` is an inclusive run; one for each block of 512 prompt tokens (the last may be
partial), equal ids are equal prefixes.
"""

from collections.abc import Iterator

from llmproxy.sim.trace import BLOCK_TOKENS, Arrival
from llmproxy.sim.traces.lines import Lines
from llmproxy.sim.traces.numbers import Columns, names_in, seconds, tokens

_BLOCKS = "block512_hash_ids"


class ColumnsFormat:
    """See the module."""

    name = "CSV with timestamp_ms, input_tokens, output_tokens"

    def recognises(self, line: str) -> bool:
        return {"timestamp_ms", "input_tokens", "output_tokens"} <= set(names_in(line))

    def read(self, lines: Lines, pool: str | None) -> Iterator[Arrival]:
        columns = Columns(lines.until(self.recognises))

        def parse(line: str) -> Arrival:
            row = columns.row(line)
            prompt = tokens(row["input_tokens"], "input_tokens", 1)
            return Arrival(
                seconds(row["timestamp_ms"], "timestamp_ms") / 1e3,
                prompt,
                tokens(row["output_tokens"], "output_tokens"),
                block_ids(row.get(_BLOCKS, ""), prompt),
            )

        return lines.parsed(parse)


def block_ids(text: str, prompt_tokens: int) -> tuple[int, ...]:
    """The ids in `text`. ValueError when they are more than the prompt has blocks."""
    most = -(-prompt_tokens // BLOCK_TOKENS)
    ids: list[int] = []
    for word in text.split():
        first, dash, last = word.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"{_BLOCKS}: {word[:40]!r} is neither an id nor a run a-b")
        low, high = int(first), int(last or first)
        if high < low:
            raise ValueError(f"{_BLOCKS}: the run {word[:40]!r} goes backwards")
        if len(ids) + high - low + 1 > most:
            raise ValueError(f"{_BLOCKS}: more ids than the {most} blocks of {prompt_tokens} tokens")
        ids.extend(range(low, high + 1))
    return tuple(ids)
