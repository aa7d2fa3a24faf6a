"""Mooncake's JSON lines: `timestamp` in ms, `input_length`, `output_length`, `hash_ids` of blocks of 512 tokens."""

import json
from collections.abc import Iterator

from llmproxy.sim.trace import BLOCK_TOKENS, Arrival
from llmproxy.sim.traces.lines import Lines
from llmproxy.sim.traces.numbers import seconds, tokens


class MooncakeFormat:
    """See the module."""

    name = "Mooncake JSON lines"

    def recognises(self, line: str) -> bool:
        return {"timestamp", "input_length", "output_length"} <= json_object(line).keys()

    def read(self, lines: Lines, pool: str | None) -> Iterator[Arrival]:
        return lines.parsed(_arrival)


def _arrival(line: str) -> Arrival:
    found = json_object(line)
    if not found:
        raise ValueError("not a JSON object")
    prompt = tokens(found.get("input_length"), "input_length", 1)
    ids = found.get("hash_ids") or []
    if not isinstance(ids, list) or not all(type(one) is int for one in ids):
        raise ValueError("hash_ids: not a list of whole numbers")
    if len(ids) > -(-prompt // BLOCK_TOKENS):
        raise ValueError(f"hash_ids: more ids than {prompt} tokens have blocks of {BLOCK_TOKENS}")
    return Arrival(
        seconds(found.get("timestamp"), "timestamp") / 1e3,
        prompt,
        tokens(found.get("output_length"), "output_length"),
        tuple(ids),
    )


def json_object(line: str) -> dict[str, object]:
    """The object in `line`; empty when there is none."""
    if not line.lstrip().startswith("{"):
        return {}
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
