"""Trace files: each format, told from its content; what is bad in them, and what is left out."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llmproxy.sim.trace import BLOCK_TOKENS, Arrival
from llmproxy.sim.traces import Trace, TraceError, read_trace

OURS = "timestamp_ms,input_tokens,output_tokens,block512_hash_ids\n"
Reader = Callable[..., Trace]


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    def read(content: str | bytes, limit: int | None = None, pool: str | None = None) -> Trace:
        # A name that says nothing: content decides.
        path = tmp_path / "trace"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_trace(path, limit, pool)

    return read


def test_our_columns_with_blocks(read: Reader) -> None:
    trace = read(f"{OURS}1000,1500,20,7 3-4\n1250,600,1,\n")
    assert trace.arrivals == (Arrival(0.0, 1500, 20, (7, 3, 4)), Arrival(0.25, 600, 1))
    assert (trace.bad, trace.more) == (0, False)


def test_our_columns_without_blocks_packed(read: Reader) -> None:
    trace = read(gzip.compress(b"timestamp_ms,input_tokens,output_tokens\r\n0,374,44\r\n4314,396,109\r\n"))
    assert trace.arrivals == (Arrival(0.0, 374, 44), Arrival(4.314, 396, 109))


def test_mooncake(read: Reader) -> None:
    lines = [
        {"timestamp": 3000, "input_length": 1030, "output_length": 52, "hash_ids": [46, 47, 99]},
        {"timestamp": 6000, "input_length": 5, "output_length": 1, "hash_ids": []},
    ]
    trace = read("\n".join(map(json.dumps, lines)))
    assert trace.arrivals == (Arrival(0.0, 1030, 52, (46, 47, 99)), Arrival(3.0, 5, 1))


@pytest.mark.parametrize(
    ("head", "first", "second"),
    [
        ("TIMESTAMP", "2023-11-16 23:59:59.5000000", "2023-11-17 00:00:01.2500000"),
        ("TIMESTAMP", "2024-05-10 00:00:00.5+00:00", "2024-05-10 02:00:02.25+02:00"),
        ("TIMESTAMP", "500", "2250"),
        ("timestamp_ms", "500", "2250.0"),
    ],
)
def test_azure(read: Reader, head: str, first: str, second: str) -> None:
    trace = read(f"{head},ContextTokens,GeneratedTokens\n{first},374,44\n{second},396,109\n")
    assert trace.format == "Azure CSV"
    assert trace.arrivals == (Arrival(0.0, 374, 44), Arrival(1.75, 396, 109))


def test_burstgpt_leaves_failed_requests_out(read: Reader) -> None:
    trace = read(
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        '5,ChatGPT,472,18,490,"Conversation log"\n45,ChatGPT,1087,0,1087,API log\n118.0,GPT-4,417,276,693,API log\n'
    )
    assert trace.arrivals == (Arrival(0.0, 472, 18), Arrival(113.0, 417, 276))
    assert trace.left_out == {"failed then": 1}


def record(**fields: object) -> str:
    """A line of the access log."""
    whole = {
        "time": "2026-01-31T09:00:01.000Z",
        "request_id": "r",
        "duration_ms": 500.0,
        "pool": "chat",
        "model": "m",
        "prompt_tokens": 100,
        "completion_tokens": 7,
        "bytes_in": 400,
        "outcome": "ok",
    }
    return json.dumps(whole | fields) + "\n"


def test_access_log_is_replayed_by_when_requests_came(read: Reader) -> None:
    trace = read(
        record(duration_ms=500.0, prompt_tokens=1) + record(time="2026-01-31T09:00:03.000Z", duration_ms=2750.0)
    )
    assert [(one.at_s, one.prompt_tokens) for one in trace.arrivals] == [(0.0, 100), (0.25, 1)]


def test_access_log_leaves_out_what_no_engine_served(read: Reader) -> None:
    trace = read(
        record(pool=None)
        + record(pool="other")
        + record(prompt_tokens=None, completion_tokens=None, outcome="refused")
        + record(),
        pool="chat",
    )
    assert len(trace.arrivals) == 1
    assert trace.left_out == {"sent to no pool": 1, "of another pool": 1, "without token counts": 1}


def test_access_log_estimates_missing_prompts_by_the_models_own_ratio(read: Reader) -> None:
    trace = read(
        record(bytes_in=1000, prompt_tokens=500)
        + record(bytes_in=100, prompt_tokens=None)
        + record(bytes_in=100, prompt_tokens=None, model="unseen")
        + record(bytes_in=1000, prompt_tokens=100, model="other")
    )
    assert [one.prompt_tokens for one in trace.arrivals] == [500, 50, 30, 100]


def test_access_log_prefixes_that_are_equal_stay_equal_and_no_others(read: Reader) -> None:
    # Blocks of 400 tokens: 512 tokens are known by the second hash, 1024 by the third, 1536 by the fourth.
    long = [f"{number:016x}" for number in range(1, 9)]
    other = [*long[:3], "ff", "fe"]
    trace = read(
        record(prompt_tokens=3400, prefix_hashes=long)
        + record(prompt_tokens=2200, prefix_hashes=other)
        + record(prompt_tokens=3400, prefix_hashes=[int(one, 16) for one in long])
    )
    first, second, third = (one.blocks for one in trace.arrivals)
    assert len(first) == 8 * 400 // BLOCK_TOKENS
    assert first == third
    assert len(set(first)) == len(first)
    assert second[:2] == first[:2]
    assert not set(second[2:]) & set(first)


def test_one_hash_over_several_blocks_gives_different_blocks(read: Reader) -> None:
    [arrival] = read(record(prompt_tokens=3000, prefix_hashes=["a"])).arrivals
    assert len(arrival.blocks) == 3
    assert len(set(arrival.blocks)) == 3


def test_lines_come_in_the_order_of_time_and_the_limit_counts_them(read: Reader) -> None:
    trace = read(f"{OURS}10,1,1,\n30,2,1,\n20,3,1,\n40,4,1,\n", limit=3)
    assert [one.prompt_tokens for one in trace.arrivals] == [1, 3, 2]
    assert trace.more
    assert not read(f"{OURS}10,1,1,\n", limit=1).more


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("x,5,1,", "timestamp_ms: 'x' is not a number"),
        ("0,0,1,", "input_tokens: '0' is not a whole number of at least 1"),
        ("0,1.5,1,", "input_tokens: '1.5' is not a whole number"),
        ("0,5,-1,", "output_tokens: '-1' is not a whole number of at least 0"),
        ("0,nan,1,", "input_tokens: 'nan' is not a number"),
        ("0,5", "2 columns where the head has 4"),
        ("0,513,1,1-3", "more ids than the 2 blocks of 513 tokens"),
        ("0,513,1,1-99999999999999", "more ids than the 2 blocks"),
        ("0,513,1,4-3", "goes backwards"),
        ("0,513,1,one", "'one' is neither an id nor a run"),
    ],
)
def test_bad_lines_are_counted_and_the_first_is_shown(read: Reader, row: str, reason: str) -> None:
    trace = read(f"{OURS}0,5,1,\n{row}\n\n{row}\n1,6,1,\n")
    assert [one.prompt_tokens for one in trace.arrivals] == [5, 6]
    assert trace.bad == 2
    assert "trace:3: " in trace.first_bad
    assert reason in trace.first_bad


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"timestamp": 1, "input_len', "not a JSON object"),
        ('{"timestamp": 1, "input_length": 5, "output_length": true}', "output_length: True is not a number"),
        ('{"timestamp": 1, "input_length": 5, "output_length": 1, "hash_ids": "1"}', "hash_ids: not a list"),
    ],
)
def test_bad_json_lines(read: Reader, line: str, reason: str) -> None:
    trace = read(f'{line}\n{{"timestamp": 0, "input_length": 5, "output_length": 1}}\n')
    assert len(trace.arrivals) == 1
    assert "trace:1: " in trace.first_bad
    assert reason in trace.first_bad


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "the file is empty"),
        ("\n\n", "the file is empty"),
        ("hello\n", "in no format known here (known: CSV with timestamp_ms"),
        (OURS, "no request to replay"),
        (f"{OURS}0,x,1,\n", "no request to replay: 1 unreadable, the first:"),
        (record(pool=None), "no request to replay: 1 sent to no pool"),
        (gzip.compress(OURS.encode() * 500)[:40], "packed and damaged"),
        (b"\x1f\x8bnot gzip", "packed and damaged"),
    ],
)
def test_files_that_cannot_be_replayed(read: Reader, content: str | bytes, words: str) -> None:
    with pytest.raises(TraceError) as caught:
        read(content)
    assert words in str(caught.value)
    assert "trace" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"nowhere\.csv: cannot be read: No such file"):
        read_trace(tmp_path / "nowhere.csv")
