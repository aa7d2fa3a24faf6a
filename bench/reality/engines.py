"""Two real vLLM engines: calibrate, load, replay, compare; and chats under two policies."""

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.labs.stage import Stage
from bench.reality.chats import Outcome, chat
from bench.reality.model import simulate
from bench.reality.play import Times, as_trace, play, times_of
from bench.reality.traffic import mixed_load, words
from llmproxy.calibrate.engine import EngineClient, session
from llmproxy.calibrate.run import Calibration, Wanted, calibrate
from llmproxy.sim.profile import Profile
from tests.engines.vllm_server import KEY, MODEL, REAL, Engines

ROOT: Final = Path(__file__).resolve().parents[2]
POLICY: Final = "least_connections"
"""Under which the load runs: it draws nothing at random."""
CHAT_POLICIES: Final = ("least_connections", "expected_cost")
_MAX_NUM_SEQS: Final = 16
"""As `tests/engines` starts them."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One load, measured and simulated."""

    requests: int
    seconds: float
    measured: Times
    simulated: Times


@contextmanager
def engines(model: str = REAL) -> Iterator[Engines]:
    """Two servers, not started yet; ended with the block."""
    directory = Path(os.environ.get("LLMPROXY_ENGINES_DIR", ROOT / ".engines"))
    pair = Engines(directory, model, ROOT / ".engines" / "logs" / "reality")
    try:
        yield pair
    finally:
        pair.destroy()


async def calibrated(pair: Engines, tell: Any) -> Calibration:
    """Side by side, as they will run."""
    wanted = Wanted(
        tuple(one.url for one in pair.both), KEY, MODEL, f"{Path(pair.a.command[2]).name}, vLLM on a CPU core"
    )
    return await calibrate(wanted, tell)


async def compared(pair: Engines, stage: Stage, profile: Profile, share: float, seconds: float) -> Compared:
    """A load through the real proxy, and the same requests in the simulator."""
    per_word = await _tokens_per_word(pair)
    questions = mixed_load(profile, len(pair.both), share, seconds, per_word)
    proxy = await stage.proxy(_config(pair, stage, POLICY))
    heard = await play(f"http://127.0.0.1:{proxy.port}", MODEL, questions)
    trace = as_trace(questions, heard)
    took_s = max(one.ended_at for one in heard) - min(one.sent_at for one in heard)
    return Compared(len(heard), took_s, times_of(heard), simulate(trace, len(pair.both), profile, POLICY))


async def chats(pair: Engines, stage: Stage) -> dict[str, Outcome]:
    """The same chats under each policy, the caches empty at first."""
    found = {}
    for policy in CHAT_POLICIES:
        await _forget(pair)
        proxy = await stage.proxy(_config(pair, stage, policy))
        urls = [one.url for one in pair.both]
        found[policy] = await chat(f"http://127.0.0.1:{proxy.port}", urls, KEY, MODEL, at_once=8, pause_s=4.0)
    return found


async def _forget(pair: Engines) -> None:
    for one in pair.both:
        await one.idle()
        answer = await one.ask("POST", "/reset_prefix_cache")
        assert answer.status == 200, answer


async def _tokens_per_word(pair: Engines) -> float:
    async with session() as http:
        heard = await EngineClient(http, pair.a.url, KEY).ask(MODEL, words(random.Random("a word"), 200), 1)
    return (heard.prompt_tokens or 200) / 200


def _config(pair: Engines, stage: Stage, policy: str) -> Any:
    backends: Sequence[Any] = pair.both
    return stage.config(backends, pool={"policy": policy, "upstream_key": KEY})
