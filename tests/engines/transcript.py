"""Makes docs/transcript.md: a real run of the proxy before two vLLM servers with a real model, one of which is killed.

    make engines && .venv/bin/python -m tests.engines.transcript [FILE]

Every command on the page is run, and what stands below it is what it printed; only length is taken out, marked with
`...`. It takes the ports 8001, 8002, 8080 and 8081 on 127.0.0.1, 8 GB of memory and two or three minutes.
"""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.engines.vllm_server import KEY, REAL, VllmServer

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 150
URL = "http://127.0.0.1:8080/v1/chat/completions"
ADMIN = "http://127.0.0.1:8081"
CONFIG = """\
server: {host: 127.0.0.1, port: 8080, limits: {connections: 1000}}
pools:
  chat:
    backends:
      - {id: vllm-a, url: "http://127.0.0.1:8001"}
      - {id: vllm-b, url: "http://127.0.0.1:8002"}
    upstream_key: "${VLLM_KEY}"
    health: {interval: 2s}
models:
  smollm2: {pool: chat}
  gpt-4o: {pool: chat, rewrite: smollm2}
logging: {access: json, file: access.log}
"""
CHAT = {"max_tokens": 60, "temperature": 0, "ignore_eos": True, "stream": True}
TALE = "The quick brown fox jumped over the lazy dog, and then it looked for something to eat. "
BODIES: dict[str, dict[str, Any]] = {
    "capital": {
        "model": "gpt-4o",
        "max_tokens": 16,
        "temperature": 0,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
    },
    "fox": CHAT | {"model": "smollm2", "messages": [{"role": "user", "content": "Tell me a story about a fox."}]},
    "long": CHAT
    | {"model": "smollm2", "messages": [{"role": "user", "content": "Go on with this story: " + TALE * 80}]},
}
SIX = 'for i in {%s}; do curl -sN $CHAT --json @%s.json -H "X-Request-Id: $i" -D $i.head -o $i.txt & done'
SEEN = (
    "for i in {1..12}; do echo $i: $(grep -oi 'backend: .*' $i.head), $(grep -c '^data: .*choices' $i.txt) chunks,"
    " at the end $(grep ^data: $i.txt | tail -n 1 | cut -c1-80); done"
)
INTRODUCTION = """
Two vLLM 0.32.0 servers on two CPU cores, without a GPU, each with a real model (SmolLM2-135M-Instruct), and the proxy
in front of them. This page is written by `.venv/bin/python -m tests.engines.transcript`, which runs the commands below
once `make engines` has installed vLLM and the model. Everything is as it was printed; `...` stands for what was left
out to keep it short.
"""
ANOTHER = "$ # ... and another one on port 8002; their environment is in tests/engines/vllm_server.py"
THE_KILLING = """
Six streams that tell a story, then six more with a long prompt each, which the engines are still reading when one of
the two is killed:
"""
THE_OUTCOME = """
Who had a part of the story from the one that died is told so, in an event; nothing but time was lost to anybody else:
"""
METRICS = "(requests|attempts|retries)_total|backend_up|time_to_first_token_seconds_(sum|count)"


class Page:
    """The page so far. Commands run in a directory of their own."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._shell: Any = {"cwd": directory, "env": environment, "executable": "/bin/bash", "shell": True}
        self.text = ""

    def say(self, text: str) -> None:
        self.text += textwrap.fill(text.strip(), 120, break_on_hyphens=False) + "\n\n"

    def block(self, content: str, language: str = "console") -> None:
        self.text += f"```{language}\n{content.rstrip()}\n```\n\n"

    def start(self, command: str) -> "subprocess.Popen[bytes]":
        """Run a command beside this program; it is not shown."""
        return subprocess.Popen(command, **self._shell)

    def run(self, command: str, *, head: int = 60, tail: int = 0, width: int = WIDTH) -> None:
        """Show a command and what it prints: the first and the last lines, none of them longer than `width`."""
        done = subprocess.run(command, **self._shell, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        lines = done.stdout.decode().replace("\r", "").rstrip("\n").split("\n")
        if len(lines) > head + tail:
            lines = [*lines[:head], "...", *lines[len(lines) - tail :]]
        shown = [line.rstrip() if len(line) <= width else f"{line[:width]}..." for line in lines]
        self.block("\n".join([f"$ {command}", *shown]))


async def make(page: Page, directory: Path, a: VllmServer, b: VllmServer) -> None:
    """The run."""
    page.say("# A real run")
    page.say(INTRODUCTION)
    page.say("## Two engines and a configuration")
    flags = [part for part in a.command[3:] if "--api-key" not in part]
    command = f"vllm serve .engines/models/{REAL} {' '.join(flags)} --api-key=$VLLM_KEY &"
    lines = textwrap.wrap(command, 116, subsequent_indent="    ", break_on_hyphens=False)
    page.block("$ " + " \\\n".join(lines) + "\n" + ANOTHER)
    for server in (a, b):
        server.start()
    (directory / "proxy.yaml").write_text(CONFIG)
    for name, body in BODIES.items():
        (directory / f"{name}.json").write_text(json.dumps(body) + "\n")
    for server in (a, b):
        await server.up()
    page.say("`proxy.yaml`, in which clients may use another name for the model, and need not know the engines' key:")
    page.block(CONFIG, "yaml")
    page.run("llmproxy check proxy.yaml --live", head=19, tail=8)
    page.block("$ llmproxy serve --config proxy.yaml 2> proxy.log &")
    proxy = page.start("exec llmproxy serve --config proxy.yaml 2> proxy.log")
    try:
        await _until(lambda: page.start(f"curl -sf -o /dev/null {ADMIN}/readyz").wait() == 0, "a proxy that is ready")
        page.say("## A question, whole and as a stream")
        page.run("cat capital.json", width=200)
        page.run(f"curl -si {URL} --json @capital.json", width=340)
        streamed = "sed 's/}$/, \"stream\": true}/' capital.json"
        page.run(f"{streamed} | curl -siN {URL} --json @-", head=15, tail=6, width=200)
        await _kill_one(page, directory, a)
        page.say("## What there is to see of it")
        page.run(f"curl -s {ADMIN}/admin/pools | python3 -m json.tool", head=64)
        page.run(f"curl -s {ADMIN}/metrics | grep -E '^llmproxy_({METRICS})'", head=40)
    finally:
        proxy.terminate()
        proxy.wait()
    lines = [json.loads(line) for line in (directory / "access.log").read_text().splitlines()]
    cut = next(line["request_id"] for line in lines if line["outcome"] == "cut")
    moved = next(line["request_id"] for line in lines if line["retries"])
    page.run(f'grep -E \'"request_id":"({cut}|{moved})"\' access.log', width=500)
    page.run("cat proxy.log", width=200)


async def _kill_one(page: Page, directory: Path, a: VllmServer) -> None:
    page.say("## One engine is killed")
    page.say(THE_KILLING)
    first = SIX % ("1..6", "fox")
    then = f"{SIX % ('7..12', 'long')}; sleep 0.5; kill -9 {a.pid}"
    page.block(f"$ CHAT={URL}\n$ {first}\n$ {then}")
    talking = page.start(f"CHAT={URL}; {first}; wait")

    def is_said(number: int) -> bool:
        said = directory / f"{number}.txt"
        return said.exists() and said.read_text().count("content") > 5

    await _until(lambda: all(map(is_said, range(1, 7))), "six streams under way")
    page.start(f"CHAT={URL}; {then}; wait").wait()
    talking.wait()
    page.say(THE_OUTCOME)
    page.run(SEEN, width=200)
    cut = next(number for number in range(1, 13) if '"error"' in (directory / f"{number}.txt").read_text())
    page.run(f"tail -n 4 {cut}.txt", width=200)


async def _until(condition: Callable[[], bool], what: str) -> None:
    for _ in range(1200):
        if await asyncio.to_thread(condition):
            return
        await asyncio.sleep(0.05)
    raise SystemExit(f"never came: {what}")


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs/transcript.md"
    engines = Path(os.environ.get("LLMPROXY_ENGINES_DIR", ROOT / ".engines")).resolve()
    for port in (8001, 8002, 8080, 8081):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                raise SystemExit(f"port {port} is taken")
    directory = Path(tempfile.mkdtemp())
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    page = Page(directory, os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "VLLM_KEY": KEY})
    cores = sorted(os.sched_getaffinity(0))
    a, b = (
        VllmServer(
            name, directory=engines, model=REAL, core=cores[core], log=directory / f"{name}.log", port=8001 - core
        )
        for name, core in (("vllm-a", 0), ("vllm-b", -1))
    )
    try:
        asyncio.run(make(page, directory, a, b))
    except BaseException:
        print(page.text, f"(in {directory})", sep="\n", file=sys.stderr)
        raise
    finally:
        a.destroy()
        b.destroy()
    shutil.rmtree(directory)
    for private in (str(ROOT), str(engines), str(directory), str(Path.home()), socket.gethostname()):
        if private in page.text:
            raise SystemExit(f"not written, because it would show {private}")
    target.write_text(page.text.rstrip() + "\n")


if __name__ == "__main__":
    main()
