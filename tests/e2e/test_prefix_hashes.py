"""Yesterday's traffic again: the access log with hashes of prompts, replayed by the simulator."""

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from llmproxy.cli import app
from tests.harness.proxy import Proxy
from tests.harness.stage import MODEL, Stage, chat

WORDS = "It is a truth universally acknowledged that a prompt in possession of a long prefix must be in want. " * 60
SALT = "sixteen characters or more"


def turn(name: str, turns: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"{name}, {number}: {WORDS}"} for number in range(turns)]
    return {"model": MODEL, "stream": True, "max_tokens": 3, "messages": messages}


async def logged(stage: Stage, path: Path, **logging: Any) -> Proxy:
    backend = {"url": (await stage.backend()).url, "id": "b1"}
    return await stage.serve(
        {
            "server": {"host": "127.0.0.1", "port": 0},
            "admin": {"port": 0},
            "pools": {"main": {"backends": [backend], "inject_usage": True}},
            "logging": {"file": str(path), **logging},
        }
    )


async def test_a_day_is_replayed_with_its_prefixes(stage: Stage, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    proxy = await logged(stage, log, prefix_hashes=True)
    for turns in range(1, 5):
        for name in ("anne", "emma", "fanny"):
            assert (await stage.ask(proxy, turn(name, turns))).status == 200
    assert (await stage.ask(proxy, None, "/v1/models")).status == 200
    records = await proxy.log()
    assert "truth" not in log.read_text()
    lengths = [len(record["prefix_hashes"]) for record in records if record["method"] == "POST"]
    assert lengths == sorted(lengths)
    assert (lengths[0], len(lengths)) == (2, 12)
    # Each conversation's turns are equal as far as they go, and unlike the others'.
    anne, longer = (records[number]["prefix_hashes"] for number in (0, 3))
    assert longer[: len(anne)] == anne
    assert all(len(bytes.fromhex(one)) == 8 for one in longer)
    assert len({records[number]["prefix_hashes"][0] for number in range(3)}) == 3
    report = tmp_path / "out.jsonl"
    words = ["simulate", "--trace", log, "--policy", "expected_cost,least_connections", "--backends", "2"]
    # They came within a moment; people take their time.
    words += ["--load", "0.0005", "--seeds", "1", "--workers", "1", "--json", report]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    hits = {row["policy"]: row["hit_rate"] for row in map(json.loads, report.read_text().splitlines())}
    assert set(hits) == {"expected_cost", "least_connections"}
    assert hits["expected_cost"] > max(hits["least_connections"], 0.3)


async def test_hashes_are_the_same_where_the_salt_is(stage: Stage, tmp_path: Path) -> None:
    seen: dict[str, list[list[str]]] = {}
    for salt in (SALT, ""):
        for run in range(2):
            options = {"prefix_salt": salt} if salt else {}
            proxy = await logged(stage, tmp_path / f"{salt}{run}.log", prefix_hashes=True, **options)
            await stage.ask(proxy, turn("anne", 1))
            seen.setdefault(salt, []).append((await proxy.log())[0]["prefix_hashes"])
    assert seen[SALT][0] == seen[SALT][1] != []
    assert not {*seen[""][0]} & {*seen[""][1], *seen[SALT][0]}


async def test_without_it_nothing_is_said(stage: Stage, tmp_path: Path) -> None:
    proxy = await logged(stage, tmp_path / "access.log")
    await stage.ask(proxy, chat())
    assert "prefix_hashes" not in (await proxy.log())[0]
