"""Hashes of prompts in the access log: equal where prompts are, and nothing to be had from them without the key."""

import json

from llmproxy.telemetry.line import LineEncoder
from llmproxy.telemetry.record import AccessRecord, PromptRecord

KEY = b"a key of some length"


def record(*blocks: int) -> PromptRecord:
    return PromptRecord.of(AccessRecord(0.0, "id", "10.0.0.1", "POST", "/"), blocks)


def hashes(encoder: LineEncoder, *records: AccessRecord) -> list[list[str]]:
    return [json.loads(line)["prefix_hashes"] for line in encoder.encode(records).splitlines()]


def test_equal_blocks_have_equal_hashes_under_one_key_only() -> None:
    one, two = hashes(LineEncoder(KEY), record(1, 2, 3), record(1, 2, 4))
    assert one[:2] == two[:2]
    assert len({*one, *two}) == 4
    assert hashes(LineEncoder(KEY), record(1, 2, 3)) == [one]
    assert not {*one} & {*hashes(LineEncoder(b"another key"), record(1, 2, 3))[0]}


def test_a_long_key_is_a_key_too() -> None:
    assert hashes(LineEncoder(b"k" * 1000), record(1)) != hashes(LineEncoder(b"k" * 1001), record(1))


def test_what_routing_uses_is_never_written() -> None:
    blocks = (0, 1, 2**63, 2**64 - 1)
    [written] = hashes(LineEncoder(KEY), record(*blocks))
    assert all(len(one) == 16 and int(one, 16) not in blocks for one in written)


def test_nor_when_a_line_of_the_batch_is_odd() -> None:
    odd = record(7)
    odd.model = "\udcff"
    bad = record(8)
    bad.status = object()  # type: ignore[assignment]
    encoder = LineEncoder(KEY)
    assert hashes(encoder, bad, record(7), odd) == hashes(LineEncoder(KEY), record(7), record(7))
    assert encoder.failed == 1


def test_the_rest_of_the_line_is_as_ever() -> None:
    plain = AccessRecord(0.0, "id", "10.0.0.1", "POST", "/")
    said, ever = map(json.loads, LineEncoder(KEY).encode([record(), plain]).splitlines())
    assert said.pop("prefix_hashes") == []
    assert said == ever
    assert list(said) == list(ever)
