"""`llmproxy simulate`, as it is typed."""

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmproxy.cli import app

KEYS = (
    "policy load seed ttft_mean_s ttft_p50_s ttft_p90_s ttft_p99_s tpot_p99_s hit_rate slo_attainment goodput_rps shed"
)
# Every step lasts 0.1 s, however much is computed in it.
FLAT = "overhead_s: 0\nbase_s: 0.1\ntoken_s: 0\nbend_tokens: 1000000\nkv_s: 0\nattention_s: 0\n"
POLICY = """\
from llmproxy.policy.routing.base import Unlearning
from llmproxy.policy.routing.options import NoOptions

class {name}(Unlearning):
    options_type = NoOptions

    def __init__(self, options, rng):
        pass

    def pick(self, candidates, request, now):
        {body}
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])

    def run(*words, expect=0):
        result = CliRunner().invoke(app, ["simulate", *(str(word) for word in words)])
        assert result.exit_code == expect, result.output
        return result

    return run


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.fixture
def busy(write):
    """Some minutes of chats whose turns share prefixes."""
    rng = random.Random(3)
    rows, fresh = ["timestamp_ms,input_tokens,output_tokens,block512_hash_ids"], 1000
    chats = {number: [number] for number in range(20)}
    for step in range(150):
        blocks = chats[rng.randrange(20)]
        for _ in range(rng.randrange(1, 4)):
            blocks.append(fresh)
            fresh += 1
        words = " ".join(map(str, blocks))
        rows.append(f"{step * 400},{len(blocks) * 512},{rng.randrange(1, 60)},{words}")
    return write("busy.csv", "\n".join(rows) + "\n")


def lines_of(path: Path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_case_computed_by_hand(run, write, tmp_path):
    trace = write(
        "t.csv",
        "timestamp_ms,input_tokens,output_tokens,block512_hash_ids\n0,1024,3,0-1\n1000,1024,1,0-1\n3000,600,2,7\n",
    )
    out = tmp_path / "out.jsonl"
    run(
        *("--trace", trace, "--policy", "least_connections", "--backends", 1, "--profile", write("flat.yaml", FLAT)),
        *("--load", 2, "--seeds", 1, "--slo", "ttft=150ms,tpot=90ms", "--json", out),
    )
    [found] = lines_of(out)
    assert list(found) == KEYS.split()
    # Each prompt is one step, each further token another. 512 of 1024 tokens are found again: the last is never.
    assert found == {
        "policy": "least_connections",
        "load": 2.0,
        "seed": 0,
        **dict.fromkeys(("ttft_mean_s", "ttft_p50_s", "ttft_p90_s", "ttft_p99_s"), pytest.approx(0.1)),
        "tpot_p99_s": pytest.approx(0.1),
        "hit_rate": pytest.approx(512 / 2648),
        "slo_attainment": pytest.approx(1 / 3),  # only the one without a second token
        "goodput_rps": pytest.approx(1 / 1.5),  # three seconds at twice the rate
        "shed": 0,
    }


def test_one_object_a_line_for_each_policy_load_and_seed(run, busy, tmp_path):
    out = tmp_path / "out.jsonl"
    result = run(
        *("-t", busy, "-p", "expected_cost,random", "-p", "round_robin", "-b", "2@2.2,1"),
        *("--load", "0.8, 1", "--seeds", 2, "--workers", 1, "--json", out),
    )
    found = lines_of(out)
    assert [(one["policy"], one["load"], one["seed"]) for one in found] == [
        (policy, load, seed)
        for policy in ("expected_cost", "random", "round_robin")
        for load in (0.8, 1.0)
        for seed in (0, 1)
    ]
    assert all(isinstance(value, (int, float)) for one in found for key, value in one.items() if key != "policy")
    for words in ("Load 0.8", "Load 1", "expected_cost", "2 of speed 2.2 (weight 2.2) + 1 of speed 1", "busy.csv"):
        assert words in result.stdout


def test_the_same_words_give_the_same_figures_in_any_number_of_processes(run, busy, tmp_path):
    words = ("-t", busy, "-p", "expected_cost,power_of_two", "-b", 3, "--seeds", 2, "--jitter", "2s")
    outs = [tmp_path / f"{number}.jsonl" for number in range(3)]
    run(*words, "--json", outs[0], "--workers", 1)
    run(*words, "--json", outs[1], "--workers", 2)
    run(*words, "--json", outs[2], "--workers", 1, "--limit", 0)
    assert outs[0].read_text() == outs[1].read_text() == outs[2].read_text()
    first, second = lines_of(outs[0])[:2]
    assert first["ttft_mean_s"] != second["ttft_mean_s"]


def test_the_first_requests_only(run, busy, tmp_path):
    result = run("-t", busy, "-p", "random", "--limit", 10, "--seeds", 1)
    assert "the first 10 requests in 4 s" in result.stdout


def test_a_pool_gives_policy_options_backends_and_queue(run, write, tmp_path):
    config = write(
        "proxy.yaml",
        """
pools:
  chat:
    policy: {name: expected_cost, own: 3}
    backends: [{url: "http://127.0.0.1:1", id: only, max_concurrency: 1}]
    queue: {max: 1, wait: 30s}
""",
    )
    trace = write("t.csv", "timestamp_ms,input_tokens,output_tokens\n0,10,3\n50,10,1\n100,10,1\n")
    out = tmp_path / "out.jsonl"
    profile = write("flat.yaml", FLAT)
    run("-c", config, "-t", trace, "--profile", profile, "--seeds", 1, "--slo", "ttft=2s", "--json", out)
    [found] = lines_of(out)
    assert (found["policy"], found["shed"]) == ("expected_cost", 1)
    assert found["ttft_p99_s"] == pytest.approx(0.3 + 0.1 - 0.05)
    assert found["slo_attainment"] == pytest.approx(2 / 3)
    # Two backends, each with the place that the one has.
    run("-c", config, "-t", trace, "--profile", profile, "--seeds", 1, "--json", out, "-b", 2)
    assert lines_of(out)[0]["shed"] == 0
    run("-c", config, "-t", trace, "-p", "random,expected_cost", "--seeds", 1, "--json", out)
    assert [one["policy"] for one in lines_of(out)] == ["random", "expected_cost"]


def test_the_pools_options_reach_its_policy_and_no_other(run, busy, write, tmp_path):
    def config(own):
        text = f"pools: {{a: {{policy: {{name: expected_cost, own: {own}}}, backends: ['http://127.0.0.1:1']}}}}"
        return write(f"own{own}.yaml", text)

    figures = []
    for number, own in enumerate((0, 50)):
        out = tmp_path / f"{number}.jsonl"
        words = ("-p", "expected_cost,prefix_affinity", "-b", 4, "--seeds", 1, "--load", 4, "--workers", 1)
        run("-c", config(own), "-t", busy, *words, "--json", out)
        figures.append(lines_of(out))
    assert figures[0][0] != figures[1][0]
    assert figures[0][1] == figures[1][1]


def test_a_policy_that_is_a_class_in_the_working_directory(run, busy, write, tmp_path):
    write("rivals_here.py", POLICY.format(name="Last", body="return candidates[-1]"))
    out = tmp_path / "out.jsonl"
    run("-t", busy, "-p", "rivals_here:Last,random", "-b", 2, "--seeds", 1, "--workers", 2, "--json", out)
    assert [one["policy"] for one in lines_of(out)] == ["rivals_here:Last", "random"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_policy_that_raises_is_named(run, busy, write, workers):
    write("rivals_broken.py", POLICY.format(name="Broken", body="raise RuntimeError('no idea')"))
    result = run("-t", busy, "-p", "rivals_broken:Broken", "--seeds", 2, "--workers", workers, expect=1)
    assert "error: policy rivals_broken:Broken at load 1, seed " in result.stderr
    assert "RuntimeError: no idea (rivals_broken.py:11)" in result.stderr


def test_the_page(run, busy, tmp_path):
    page = tmp_path / "out.html"
    result = run("-t", busy, "-p", "random,round_robin", "--seeds", 1, "--report", page, "--load", "0.5,1")
    text = page.read_text()
    assert f"The plots are in {page}." in result.stdout
    for words in ("busy.csv", "a100-llama-3-8b", "<dt>Seeds</dt><dd>1</dd>", "llmproxy 0", "Goodput by load"):
        assert words in text
    assert "http" not in text


def test_what_is_not_replayed_is_said(run, write):
    rows = "0,10,5\nx,1,1\n1,2000000,1\n2,10,5\n"
    result = run("-t", write("t.csv", f"timestamp_ms,input_tokens,output_tokens\n{rows}"), "-p", "random")
    assert "warning: 1 unreadable lines in t.csv, the first: " in result.stderr
    assert "t.csv:3: timestamp_ms: 'x' is not a number" in result.stderr
    assert "warning: 1 requests of t.csv are not replayed: longer than the 1,331,200 tokens" in result.stderr


def test_yesterday_under_another_policy(run, write, tmp_path):
    records = [
        {
            "time": f"2026-01-31T09:00:{second:02d}.500Z",
            "request_id": f"r{second}",
            "duration_ms": 400,
            "pool": pool,
            "model": "m",
            "prompt_tokens": 1800,
            "completion_tokens": 5,
            "bytes_in": 7000,
            "outcome": "ok",
            "prefix_hashes": ["a1", "b2", "c3"],
        }
        for second in range(10)
        for pool in ("chat", "other")
    ]
    log = write("access.log", "\n".join(map(json.dumps, records)))
    out = tmp_path / "out.jsonl"
    result = run("-t", log, "-p", "expected_cost,least_connections", "--pool", "chat", "--seeds", 1, "--json", out)
    assert "access.log (access log): 10 requests in 9 s" in result.stdout
    assert "warning: 10 requests of access.log are not replayed: of another pool" in result.stderr
    first, second = lines_of(out)
    assert first["hit_rate"] > second["hit_rate"] > 0.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "nothing to compare: name policies with --policy, or give a --config"),
        (("-p", "random", "-t", "nowhere.csv"), "nowhere.csv: cannot be read: No such file or directory"),
        (("-p", "random", "-t", "empty.csv"), "empty.csv: the file is empty"),
        (("-p", "random", "-t", "head.csv"), "head.csv: no request to replay"),
        (("-p", "leest_connections"), 'did you mean "least_connections"?'),
        (("-p", "random,,"), "--policy: there is no routing policy ''"),
        (("-p", "nosuch.module:X"), "--policy: routing policy 'nosuch.module:X': there is no module 'nosuch'"),
        (("-p", "random", "-b", "2@"), "--backends: '2@' is neither COUNT nor COUNT@SPEED"),
        (("-p", "random", "-b", "0"), "--backends: '0': count and speed must be more than 0"),
        (("-p", "random", "--load", "0.9,0"), "--load: '0' is not a factor such as 0.9"),
        (("-p", "random", "--load", "high"), "--load: 'high' is not a factor"),
        (("-p", "random", "--jitter", "some"), "--jitter: 'some' is not a duration"),
        (("-p", "random", "--slo", "itl=1s"), "--slo: 'itl=1s' is none of ttft=TIME"),
        (("-p", "random", "--profile", "nowhere.yaml"), "nowhere.yaml: cannot be read"),
        (("-p", "random", "--json", "no/such/folder.jsonl"), "there is no folder to write it to"),
        (("-p", "random", "--report", "."), "or it is a folder itself"),
        (("-c", "nowhere.yaml"), "nowhere.yaml: cannot be read"),
        (("-c", "two.yaml"), "two.yaml has several pools: say which with --pool (chat, code)"),
        (("-c", "two.yaml", "--pool", "chad"), "has no pool 'chad'; did you mean \"chat\"?"),
        (("-c", "wrong.yaml"), "wrong.yaml:1: pools.a.policy: there is no routing policy 'best'"),
    ],
)
def test_mistakes_are_said_in_words(run, write, busy, words, message):
    write("empty.csv", "")
    write("head.csv", "timestamp_ms,input_tokens,output_tokens\n")
    pools = "{chat: {backends: ['http://h:1']}, code: {backends: ['http://h:2']}}"
    write("two.yaml", f"pools: {pools}\nmodels: {{a: {{pool: chat}}, b: {{pool: code}}}}")
    write("wrong.yaml", "pools: {a: {policy: best, backends: ['http://h:1']}}")
    result = run(*(() if "-t" in words else ("-t", busy)), *words, expect=1)
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not result.stdout


def test_nothing_fits(run, write):
    trace = write("t.csv", "timestamp_ms,input_tokens,output_tokens\n0,1000,5\n")
    result = run("-t", trace, "-p", "random", "--profile", write("p.yaml", "kv_blocks: 1"), expect=1)
    assert "no request fits into the 512 tokens of a KV cache" in result.stderr
