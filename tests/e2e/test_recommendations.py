"""`GET /admin/scaling/{pool}/recommendations`: a replay in a process of its own, while requests go on."""

import json
import time
from pathlib import Path
from typing import Any

import aiohttp

from llmproxy.stores.history import SqliteHistory
from tests.harness.proxy import Proxy
from tests.harness.stage import Stage, chat


async def asked(proxy: Proxy, pool: str = "main") -> tuple[int, dict[str, Any]]:
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{proxy.admin_url}/admin/scaling/{pool}/recommendations") as answer,
    ):
        return answer.status, json.loads(await answer.text())


def scaling(history: Path) -> dict[str, Any]:
    return {
        "min": 6,
        "max": 9,
        "cold_start": "30s",
        "interval": "0.2s",
        "policies": ["demand"],
        "capacity": {"requests_per_s": 4},
        "budget": {"price_per_hour": 2.5, "per_hour": 100},
        "history": str(history),
        "actuator": "dry_run",
    }


async def test_what_its_own_traffic_says(stage: Stage, tmp_path: Path) -> None:
    began = int(time.time() // 60) - 90
    SqliteHistory(tmp_path / "kept.db").append("main", [(began + n, (3.0, None, None)) for n in range(80)], 0)
    [backend] = await stage.backends(1)
    proxy = await stage.proxy(backend, pool={"scaling": scaling(tmp_path / "kept.db")})
    status, found = await asked(proxy)
    assert status == 200, found
    assert (found["pool"], found["not_replayed"]) == ("main", [])
    assert found["recommendations"][0]["change"] == "min: 1"
    assert found["recommendations"][0]["slo_attained"] >= found["slo_kept"] == 0.995
    assert (await stage.ask(proxy, chat())).status == 200
    kept = dict(proxy.app._adviser._found)
    assert (await asked(proxy))[1] == found
    assert proxy.app._adviser._found == kept, "what was found is not replayed again at once"


async def test_it_says_what_was_not_replayed(stage: Stage, tmp_path: Path) -> None:
    began = int(time.time() // 60) - 90
    SqliteHistory(tmp_path / "kept.db").append("main", [(began + n, (3.0, None, None)) for n in range(40)], 0)
    [backend] = await stage.backends(1)
    more = {
        "budget": {"price_per_hour": 2.5, "per_hour": 100},
        "warm_pool": {"size": 1},
        "tiers_of_capacity": [{"name": "small"}, {"name": "big", "worth": 4}],
        "policies": ["demand", {"steps": {"signal": "gpu_utilization", "table": {0: 1}}}],
    }
    proxy = await stage.proxy(backend, pool={"scaling": scaling(tmp_path / "kept.db") | more})
    status, found = await asked(proxy)
    assert status == 200, found
    assert [one.split(":")[0] for one in found["not_replayed"]] == [
        "tiers_of_capacity",
        "warm_pool",
        "signals of engines, GPUs, latencies and outside queries",
    ]


async def test_it_says_why_it_cannot_say_anything(stage: Stage, tmp_path: Path) -> None:
    [backend] = await stage.backends(1)
    proxy = await stage.proxy(backend, pool={"scaling": scaling(tmp_path / "empty.db")})
    status, found = await asked(proxy)
    assert status == 409
    assert "minutes of traffic are too few" in found["error"]["message"]
    assert (await asked(proxy, "nobody"))[0] == 404
