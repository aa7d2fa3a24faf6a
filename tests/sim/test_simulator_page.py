"""What docs/simulator.md shows works, as it is written there."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmproxy.cli import app
from llmproxy.cli.simulate import simulate
from llmproxy.sim.profile import Profile, read_profile
from llmproxy.sim.score import FIGURES

PAGE = (Path(__file__).parent.parent.parent / "docs" / "simulator.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines()]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_run(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("chats.csv").write_text(*blocks("csv"))
    Path("proxy.yaml").write_text(blocks("yaml")[0])
    program, *words = shlex.split(command)
    assert program == "llmproxy"
    result = CliRunner().invoke(app, [*words, "--workers", "1"])
    assert result.exit_code == 0, result.output
    assert "8 requests in 9 s" in result.stdout
    for name in ("out.html", "out.jsonl"):
        assert Path(name).exists() == (name in command)


def test_there_are_commands():
    assert len(COMMANDS) == 3


def test_the_profile_is_one(tmp_path):
    path = tmp_path / "profile.yaml"
    path.write_text(blocks("yaml")[1])
    assert read_profile(path) == Profile(
        name="our-h100", kv_blocks=5200, max_batched_tokens=8192, max_num_seqs=512, speed=2.0
    )


def test_options_and_keys_are_all_named():
    named = set(re.findall(r"`--([a-z-]+)", PAGE))
    assert named == {name.replace("_", "-") for name in simulate.__annotations__} - {"context", "return"}
    keys = set(re.findall(r"`(\w+)`", PAGE))
    assert {"policy", "load", "seed", *FIGURES} <= keys
