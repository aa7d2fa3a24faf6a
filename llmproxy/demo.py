"""The proxy over emulated backends: in this process, or, to show scaling, as processes it starts and stops itself."""

import contextlib
import shlex
import sys
import tempfile
from collections.abc import Callable
from typing import Any, Final

from llmproxy.app import App
from llmproxy.config.model import Config
from llmproxy.emulator import Emulator, EmulatorOptions
from llmproxy.process import run, serve
from llmproxy.telemetry.log import configure

MODEL: Final = "demo-model"
_STARTUP_S: Final = 5
_SLOTS: Final = 8


def serve_demo(port: int, admin_port: int, backends: int, *, autoscale: bool) -> int:
    """Until a signal ends it; the exit status."""
    configure("info")
    return run(_scaled(port, admin_port, backends) if autoscale else _fixed(port, admin_port, backends))


async def _fixed(port: int, admin_port: int, backends: int) -> int:
    async with contextlib.AsyncExitStack() as stack:
        urls = []
        for number in range(1, backends + 1):
            options = EmulatorOptions(models=(MODEL,), name=f"emulated-{number}")
            emulator = await stack.enter_async_context(Emulator(options))
            urls.append({"url": emulator.url, "id": f"emulated-{number}"})
        return await serve(App(_config(port, admin_port, {"backends": urls})), _announcing(_CURL))


async def _scaled(port: int, admin_port: int, most: int) -> int:
    """As config/scaling-emulated.yaml, with a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="llmproxy-demo-", ignore_cleanup_errors=True) as folder:
        engine = (
            f"{shlex.quote(sys.executable)} -m llmproxy emulate --port {{port}} --startup {_STARTUP_S} --itl 40 "
            f"--max-num-seqs {_SLOTS} --model {MODEL}"
        )
        pool = {
            "queue": {"wait": "2m"},
            "scaling": {
                "min": 0,
                "max": most,
                "interval": "1s",
                "max_concurrency": _SLOTS,
                "capacity": {"requests_per_s": 4},
                "policies": [{"demand": {"hold": "20s", "dig_off": "5s", "silence": "0s"}}],
                "behavior": {"down": {"window": "10s"}},
                "budget": {"price_per_hour": 2.5},
                "actuator": {"kind": "process", "command": engine, "directory": folder, "on_exit": "stop"},
            },
        }
        return await serve(App(_config(port, admin_port, pool)), _announcing(_CURL, _MANY, _WATCH))


def _config(port: int, admin_port: int, pool: dict[str, Any]) -> Config:
    return Config.model_validate(
        {
            "server": {"host": "127.0.0.1", "port": port, "limits": {"connections": 1000}},
            "admin": {"port": admin_port},
            "pools": {"demo": pool},
            "models": {MODEL: {"pool": "demo"}},
        }
    )


_QUESTION: Final = (
    f'-d \'{{"model": "{MODEL}", "stream": true, "max_tokens": 20, '
    '"messages": [{"role": "user", "content": "Hello"}]}\''
)
_CURL: Final = (
    "Try it:\n  curl -N http://127.0.0.1:{port}/v1/chat/completions -H 'Content-Type: application/json' {question}\n"
)
_MANY: Final = (
    "The first answer waits for an engine to start. A hundred at once bring more engines:\n"
    "  for i in $(seq 100); do curl -s http://127.0.0.1:{port}/v1/chat/completions -H 'Content-Type: application/json' "
    "{question} > /dev/null & done\n"
)
_WATCH: Final = (
    "Scaling: http://127.0.0.1:{admin_port}/admin/scaling/demo, and .../demo/decisions (why)\n"
    "Costs:   http://127.0.0.1:{admin_port}/admin/costs (at 2.50 an hour for each engine)\n"
)
_PAGES: Final = "Metrics: http://127.0.0.1:{admin_port}/metrics\nPools:   http://127.0.0.1:{admin_port}/admin/pools\n"


def _announcing(*parts: str) -> Callable[[App], None]:
    def announce(app: App) -> None:
        text = "\n" + "".join((*parts, _PAGES))
        found = {"{port}": str(app.listener.port), "{admin_port}": str(app.admin.port), "{question}": _QUESTION}
        for name, value in found.items():
            text = text.replace(name, value)
        print(text, flush=True)

    return announce
