"""The access log of this proxy (see `docs/operations.md`), to replay what it served.

A record is written when its request *ended*; it came `duration_ms` before that. What the engines said of tokens is
taken as it stands. A prompt without a count is estimated from `bytes_in`, by the tokens a byte of the other requests
for the same model. Requests without any token count (refused, failed, not for an engine) are not replayed.

`prefix_hashes` are hashes of the prompt's blocks of `BLOCK_BYTES` bytes, each of which covers all before it. The tokens
in such a block are the median of the model's own records. A grid of `BLOCK_TOKENS` tokens is laid over that, each of
its blocks known by the hash that reaches its end. One grid for all of a model's prompts keeps equal prefixes equal.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from llmproxy.core.prompt import BLOCK_BYTES, TOKENS_PER_BYTE
from llmproxy.sim.trace import BLOCK_TOKENS, Arrival, regrid
from llmproxy.sim.traces.lines import LeftOut, Lines
from llmproxy.sim.traces.mooncake import json_object
from llmproxy.sim.traces.numbers import moment, seconds, tokens


@dataclass(frozen=True, slots=True)
class Entry:
    """One record. `prompt_tokens` is None where the engine did not say."""

    at_s: float
    model: str
    prompt_tokens: int | None
    output_tokens: int
    body_bytes: int
    hashes: Sequence[int]


class AccessLogFormat:
    """See the module."""

    name = "access log"

    def recognises(self, line: str) -> bool:
        return {"time", "request_id", "duration_ms", "outcome"} <= json_object(line).keys()

    def read(self, lines: Lines, pool: str | None) -> Iterator[Arrival]:
        entries = sorted(lines.parsed(lambda line: _entry(line, pool)), key=lambda entry: entry.at_s)
        per_byte = _tokens_per_byte(entries)
        per_block = _tokens_per_block(entries)
        anyone = median(per_byte.values()) if per_byte else TOKENS_PER_BYTE
        for entry in entries:
            prompt = entry.prompt_tokens
            if prompt is None:
                prompt = max(round(entry.body_bytes * per_byte.get(entry.model, anyone)), 1)
            block = per_block.get(entry.model, BLOCK_BYTES * per_byte.get(entry.model, anyone))
            yield Arrival(entry.at_s, prompt, entry.output_tokens, regrid(entry.hashes, block, BLOCK_TOKENS))


def began_unix_s(path: Path) -> float:
    """When the first request in it came; 0 for what is no access log."""
    with closing(Lines(path)) as lines:
        first = lines.peek(1)
    found = json_object(first[0]) if first else {}
    if not {"time", "duration_ms"} <= found.keys():
        return 0.0
    return moment(found["time"], "time") - seconds(found["duration_ms"] or 0.0, "duration_ms") / 1e3


def _entry(line: str, pool: str | None) -> Entry:
    found = json_object(line)
    if not found:
        raise ValueError("not a JSON object")
    if found.get("pool") in (None, "none"):
        raise LeftOut("sent to no pool")
    if pool is not None and found["pool"] != pool:
        raise LeftOut("of another pool")
    prompt, output = found.get("prompt_tokens"), found.get("completion_tokens")
    if not prompt and not output:
        raise LeftOut("without token counts")
    ended = moment(found.get("time"), "time")
    return Entry(
        ended - seconds(found.get("duration_ms") or 0.0, "duration_ms") / 1e3,
        str(found.get("model") or ""),
        tokens(prompt, "prompt_tokens", 1) if prompt else None,
        tokens(output or 0, "completion_tokens"),
        tokens(found.get("bytes_in") or 0, "bytes_in"),
        _hashes(found.get("prefix_hashes")),
    )


def _hashes(value: object) -> Sequence[int]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError("prefix_hashes: not a list")
    hashes = []
    for one in value:
        if isinstance(one, str):
            hashes.append(int(one, 16))
        elif type(one) is int:
            hashes.append(one)
        else:
            raise ValueError("prefix_hashes: neither whole numbers nor hexadecimal text")
    return tuple(hashes)


def _tokens_per_byte(entries: Sequence[Entry]) -> dict[str, float]:
    seen: dict[str, list[float]] = {}
    for entry in entries:
        if entry.prompt_tokens is not None and entry.body_bytes:
            seen.setdefault(entry.model, []).append(entry.prompt_tokens / entry.body_bytes)
    return {model: median(ratios) for model, ratios in seen.items()}


def _tokens_per_block(entries: Sequence[Entry]) -> dict[str, float]:
    """A prompt with n full blocks has, on average, half a block more."""
    seen: dict[str, list[float]] = {}
    for entry in entries:
        if entry.prompt_tokens is not None and entry.hashes:
            seen.setdefault(entry.model, []).append(entry.prompt_tokens / (len(entry.hashes) + 0.5))
    return {model: median(sizes) for model, sizes in seen.items()}
