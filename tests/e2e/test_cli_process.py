"""The command as a user meets it: what it prints, and how it ends."""

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
import yaml

from llmproxy import __version__
from llmproxy.control.actuators.processes import signal_group
from tests.harness.client import events, spoken
from tests.harness.processes import Running, ServingProcess
from tests.harness.proxy import settings
from tests.harness.stage import CHAT, Stage, chat
from tests.harness.waiting import until

NOBODY = "http://127.0.0.1:9"


async def run(*arguments: str, env: dict[str, str] | None = None) -> Running:
    """A command that ends by itself."""
    async with Running(*arguments, env=env) as command:
        await command.ends()
    return command


async def test_version() -> None:
    command = await run("version")
    assert command.process.returncode == 0
    assert re.fullmatch(rf"llmproxy {re.escape(__version__)} \(.*Python 3\.\d+\.\d+\)\n", command.out)
    assert command.err == ""


async def test_help_names_every_command_and_each_has_its_own() -> None:
    plain = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    command = await run("--help", env=plain)
    assert command.process.returncode == 0
    names = ("serve", "check", "demo", "emulate", "schema", "version")
    for name in names:
        assert re.search(rf"\b{name}\b", command.out), name
    details = await asyncio.gather(*(run(name, "--help", env=plain) for name in names))
    for name, detail in zip(names, details, strict=True):
        assert detail.process.returncode == 0
        assert f"llmproxy {name}" in detail.out
    assert "--config" in details[0].out
    assert "SIGHUP" in details[0].out


async def test_without_arguments_it_shows_help() -> None:
    command = await run()
    assert command.process.returncode == 2
    assert "serve" in command.out + command.err


async def test_a_command_that_does_not_exist() -> None:
    command = await run("sevre")
    assert command.process.returncode == 2
    assert "sevre" in command.err
    assert "Traceback" not in command.err


async def ask_once(url: str, model: str = "demo-model") -> int:
    body = {**chat(stream=False), "model": model}
    async with aiohttp.ClientSession() as http, http.post(url + CHAT, json=body) as answer:
        return answer.status


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[Path]:
    """A folder in whose own folders engines are recorded; none of them is left in the end."""
    yield tmp_path
    for file in tmp_path.glob("*/replicas.json"):
        for row in json.loads(file.read_text())["replicas"]:
            signal_group(row["pid"], signal.SIGKILL)


async def scaled_to(url: str, is_so: Callable[[int], bool]) -> None:
    """Wait until the pool `demo` has so many serving."""

    async def found() -> bool:
        async with aiohttp.ClientSession() as http, http.get(f"{url}/admin/scaling/demo") as answer:
            view = await answer.json()
        return is_so(sum(one["stage"] == "serving" for one in view["replicas"]))

    await until(found, "replicas that serve", 60.0)


async def test_the_demo_starts_engines_itself_from_none(engines: Path) -> None:
    env = {**os.environ, "TMPDIR": str(engines)}
    async with Running("demo", "--autoscale", "--port", "0", "--admin-port", "0", env=env) as demo:
        url = (await demo.says(r"curl -N (http://[^/]+)"))[1]
        admin = (await demo.says(r"Scaling: (http://[^/]+)"))[1]
        await scaled_to(admin, lambda count: count == 0)
        async with aiohttp.ClientSession() as http, http.get(f"{admin}/admin/pools") as answer:
            assert (await answer.json())["pools"][0]["backends"] == []
        assert await ask_once(url, "another") == 404
        assert await ask_once(url) == 200
        assert set(await asyncio.gather(*(ask_once(url) for _ in range(60)))) == {200}
        await scaled_to(admin, lambda count: count == 2)
        demo.signal(signal.SIGINT)
        assert await demo.ends() == 0
    assert "Traceback" not in demo.err
    assert list(engines.iterdir()) == [], "its folder is gone, and with it the engines"


async def test_the_emulated_example_serves_as_make_serve_runs_it(engines: Path) -> None:
    """Its own command, found on the path that `make serve` gives it."""
    text = (Path(__file__).parents[2] / "config" / "scaling-emulated.yaml").read_text()
    example = yaml.safe_load(text)
    example["server"]["port"], example["admin"] = 0, {"port": 0}
    (engines / "bin").mkdir()
    command = engines / "bin" / "llmproxy"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m llmproxy "$@"\n')
    command.chmod(0o755)
    (engines / "c.yaml").write_text(yaml.safe_dump(example))
    env = {**os.environ, "PATH": f"{engines / 'bin'}:{os.environ['PATH']}"}
    async with Running("serve", "--config", str(engines / "c.yaml"), env=env) as proxy:
        url = (await proxy.says(r"serving (http://\S+) over"))[1]
        assert await ask_once(url) == 200
        assert (engines / "run-emulated" / "replicas.json").exists()
        proxy.signal(signal.SIGTERM)
        assert await proxy.ends() == 0
    rows = json.loads((engines / "run-emulated" / "replicas.json").read_text())["replicas"]
    assert rows == [], "engines end with it"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_the_demo_prints_a_curl_line_that_works() -> None:
    async with Running("demo", "--port", "0", "--admin-port", "0") as demo:
        line = (await demo.says(r"curl [^\n]*"))[0]
        metrics = (await demo.says(r"Metrics: +(http://\S+)"))[1]
        words = shlex.split(line)
        curl = await asyncio.create_subprocess_exec(*words, "-sS", "--fail", stdout=asyncio.subprocess.PIPE)
        body, _ = await asyncio.wait_for(curl.communicate(), 20.0)
        assert curl.returncode == 0
        found = events(body)
        assert found[-1] == "[DONE]"
        assert len(spoken(found).split()) == 20
        async with aiohttp.ClientSession() as http, http.get(metrics) as response:
            page = await response.text()
        assert re.search(r'^llmproxy_requests_total\{[^}]*status="200"\} 1\.0$', page, re.MULTILINE)
        assert page.count("llmproxy_backend_up{") == 2
        demo.signal(signal.SIGINT)
        assert await demo.ends() == 0
    assert "Traceback" not in demo.err
    # The access log is one JSON line on standard output.
    assert [json.loads(text)["status"] for text in demo.out.splitlines() if text.startswith("{")] == [200]


WRONG = [
    ("polls: {}\n", [r"proxy\.yaml:1: polls: .*did you mean.*pools"]),
    ("pools:\n  a:\n    backends: ['ftp://x']\n", [r"proxy\.yaml:3: pools\.a\.backends\[0\].*http"]),
    ("pools:\n  a: {backends: ['http://x'], policy: fastest}\n", [r"proxy\.yaml:2: pools\.a\.policy.*fastest"]),
    (
        "server: {port: high}\npools:\n  a:\n    backends: ['http://x']\nmodels:\n  m: {pool: b}\n",
        [r"proxy\.yaml:1: server\.port", r"proxy\.yaml:6: models\.m\.pool.*b"],
    ),
    ("pools: [\n", [r"proxy\.yaml:\d: "]),
]


@pytest.mark.parametrize(("text", "complaints"), WRONG)
async def test_a_wrong_configuration_is_told_line_by_line(tmp_path: Path, text: str, complaints: list[str]) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text(text)
    command = await run("serve", "--config", str(path))
    assert command.process.returncode == 1
    for complaint in complaints:
        assert re.search(complaint, command.err), command.err
    assert "Traceback" not in command.err
    assert command.out == ""


async def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    command = await run("serve", "--config", str(tmp_path / "nowhere.yaml"))
    assert command.process.returncode == 1
    assert re.search(r"nowhere\.yaml: .*No such file", command.err)
    assert "Traceback" not in command.err


@pytest.mark.parametrize("section", ["server", "admin"])
async def test_a_port_in_use_is_said_clearly(tmp_path: Path, section: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path = tmp_path / "proxy.yaml"
        pools = {"main": {"backends": [NOBODY]}}
        path.write_text(yaml.safe_dump(settings(pools, tmp_path / "access.jsonl", **{section: {"port": port}})))
        command = await run("serve", "--config", str(path))
    assert command.process.returncode == 1
    assert str(port) in command.err
    assert "in use" in command.err
    assert "Traceback" not in command.err


async def test_a_secret_from_the_environment(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await stage.backend(api_key="sesame")
    path = tmp_path / "proxy.yaml"
    values = settings(
        {"main": {"backends": [engine.url], "upstream_key": "${ENGINE_KEY}"}},
        tmp_path / "access.jsonl",
        admin={"token": "${ADMIN_TOKEN:-}"},
    )
    path.write_text(yaml.safe_dump(values))
    missing = await run("serve", "--config", str(path))
    assert missing.process.returncode == 1
    assert "ENGINE_KEY" in missing.err
    monkeypatch.setenv("ENGINE_KEY", "sesame")
    monkeypatch.setenv("ADMIN_TOKEN", "open")
    async with ServingProcess(str(path)) as proxy:
        await proxy.ready()
        client = await stage.client(proxy)
        assert (await client.ask("POST", CHAT, chat(stream=False))).status == 200
        async with aiohttp.ClientSession() as http:
            async with http.get(f"{proxy.admin_url}/admin/pools") as response:
                assert response.status == 401
            headers = {"Authorization": "Bearer open"}
            async with http.get(f"{proxy.admin_url}/admin/pools", headers=headers) as response:
                assert (response.status, (await response.json())["pools"][0]["name"]) == (200, "main")
        client.leave()
        proxy.signal(signal.SIGTERM)
        assert await proxy.ends() == 0
    assert "sesame" not in proxy.out + proxy.err + (tmp_path / "access.jsonl").read_text()


async def test_too_few_file_descriptors_are_pointed_out(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    limits = {"limits": {"connections": 1_000_000_000}}
    path.write_text(yaml.safe_dump(settings({"main": {"backends": [NOBODY]}}, tmp_path / "a.jsonl", server=limits)))
    async with ServingProcess(str(path)) as proxy:
        await proxy.says(r"server\.limits\.connections is 1000000000, which needs .* file descriptors")
        proxy.signal(signal.SIGTERM)
        assert await proxy.ends() == 0
