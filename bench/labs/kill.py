"""One of two engines is killed (SIGKILL) under 200 concurrent streams.

Twice. Crowded: both engines are full, so some streams wait for a place, some are in their prefill behind the engine's
200, some in the middle of their answer. Whoever had no token must get a whole answer, whoever had one must be told by
an error event. How long that takes is then a matter of how soon the other engine has places. So once more with room
enough, and newcomers arriving all the while: how soon the streams that were in their prefill have their first token
from the other engine, beyond the time that engine takes for it, and when the dead one is left alone.
"""

import asyncio
import json
import signal
import time
from collections.abc import Iterable

from bench.labs.answer import Answer
from bench.labs.base import Finding, Lab, ms, never, no_less_than, no_more_than
from bench.labs.client import Client
from bench.labs.processes import Engine, Proxy
from bench.labs.stage import ConfigFile, Stage, metric, until

_STREAMS = 200
_PLACES = 80
_CROWDED = ("--ttft", "50", "--itl", "25")
_TOKENS = 30
_SLOW = 40
"""In a prefill of two seconds."""

_ROOMY = ("--ttft", "100", "--itl", "20")
_LONG_TOKENS = 1000
_SLOW_IN_ROOM = 20
_NEWCOMERS_EACH_S = 0.01
_BEFORE_S, _AFTER_S = 0.3, 2.0
_LOOK_S = 0.02


async def run(stage: Stage) -> list[Finding]:
    return [*await _crowded(stage), *await _with_room(stage)]


# -- crowded -----------------------------------------------------------------------------------------------------------


async def _crowded(stage: Stage) -> list[Finding]:
    doomed, other = await stage.engines(_CROWDED, _CROWDED)
    config = stage.config([doomed, other], each={"max_concurrency": _PLACES})
    proxy = await stage.proxy(config)
    clients = await stage.clients(proxy.port, _STREAMS)
    asked = [1 if number % 3 == 0 else _TOKENS for number in range(_STREAMS)]
    answers = [
        client.chat(tokens, id=f"s{number}", fault=f"slow={_SLOW}" if tokens == 1 else "")
        for number, (client, tokens) in enumerate(zip(clients, asked, strict=True))
    ]
    await _in_full_swing(doomed, proxy, answers)
    doomed.signal(signal.SIGKILL)
    await asyncio.gather(*(answer.over.wait() for answer in answers))
    flawed = [
        (answer, f"s{number}: {flaw}")
        for number, (answer, tokens) in enumerate(zip(answers, asked, strict=True))
        if (flaw := answer.flaw(tokens, stream=True)) is not None
    ]
    cut = [(answer, flaw) for answer, flaw in flawed if answer.token_times()]
    retried = await _retried(config, (f"s{number}" for number in range(_STREAMS)))
    return [
        never("failed without a token downstream", (flaw for answer, flaw in flawed if not answer.token_times())),
        never(
            "cut, not ended by an error event", (flaw for answer, flaw in cut if not answer.ends_with_an_error_event())
        ),
        no_less_than("of 200 streams cut in mid-answer", len(cut), 1),
        no_less_than("of 200 streams answered by a retry", len(retried), 15),
    ]


async def _in_full_swing(doomed: Engine, proxy: Proxy, answers: list[Answer]) -> None:
    """Streams in all phases."""
    async with await Client.open(doomed.port) as engine, await Client.open(proxy.admin_port) as admin:

        async def all_phases() -> bool:
            phases = await _phases(engine)
            waiting = metric(await admin.get("/metrics"), "llmproxy_queue_waiting")
            begun = sum(bool(answer.first_at) for answer in answers)
            return phases["prefill"] >= 15 and phases["decoding"] >= 15 and waiting >= 20 and begun >= 15

        await until(all_phases, "streams that wait, in prefill, and in mid-answer")


async def _phases(engine: Client) -> dict[str, int]:
    found: dict[str, int] = json.loads(await engine.get("/emulator/state"))["phases"]
    return found


async def _retried(config: ConfigFile, answers: Iterable[str]) -> set[str]:
    """Which of these requests the access log says were tried again."""
    ids = set(answers)
    await until(lambda: ids <= {line["request_id"] for line in config.log()}, "the access log")
    return {line["request_id"] for line in config.log() if line["retries"]} & ids


# -- with room ---------------------------------------------------------------------------------------------------------


async def _with_room(stage: Stage) -> list[Finding]:
    doomed, other = await stage.engines(_ROOMY, _ROOMY)
    config = stage.config([doomed, other])
    proxy = await stage.proxy(config)
    clients = await stage.clients(proxy.port, _STREAMS)
    speaking = [client.chat(_LONG_TOKENS) for client in clients[::2]]
    await asyncio.gather(*(answer.begun.wait() for answer in speaking))
    prefilling = {
        f"p{number}": client.chat(1, id=f"p{number}", fault=f"slow={_SLOW_IN_ROOM}")
        for number, client in enumerate(clients[1::2])
    }
    async with await Client.open(doomed.port) as engine:

        async def half_of_them() -> bool:
            return (await _phases(engine))["prefill"] >= len(prefilling) // 2

        await until(half_of_them, "streams in prefill")
    newcomers = asyncio.create_task(_arrive(proxy.port))
    try:
        await asyncio.sleep(_BEFORE_S)
        killed_at = time.monotonic()
        doomed.signal(signal.SIGKILL)
        left_alone_at = await _left_alone_at(proxy, killed_at)
        arrived = await newcomers
    finally:
        newcomers.cancel()
    await asyncio.gather(*(answer.over.wait() for answer in prefilling.values()))
    for client in clients:
        client.leave()
    flaws = {id: answer.flaw(1, stream=True) for id, answer in (prefilling | arrived).items()}
    retried = await _retried(config, prefilling | arrived)
    ttft_s = float(_ROOMY[1]) / 1e3
    late_s = [one.first_at - killed_at - ttft_s * _SLOW_IN_ROOM for id, one in prefilling.items() if id in retried]
    late_s += [one.first_at - max(one.sent_at, killed_at) - ttft_s for id, one in arrived.items() if id in retried]
    return [
        never("failed without a token, with room", (f"{id}: {flaw}" for id, flaw in flaws.items() if flaw)),
        no_less_than("answered by a retry, with room", len(late_s), 30),
        no_more_than("last retried first token, beyond the engine's TTFT", ms(max(late_s, default=0.0)), 250, "ms"),
        no_more_than("until the dead one is asked no more", ms(left_alone_at - killed_at), 250, "ms"),
    ]


async def _arrive(port: int) -> dict[str, Answer]:
    """Requests on connections of their own, at a fixed rate, whatever becomes of them."""
    answers: dict[str, Answer] = {}
    clients: list[Client] = []
    begin = time.monotonic()
    try:
        for number in range(round((_BEFORE_S + _AFTER_S) / _NEWCOMERS_EACH_S)):
            await asyncio.sleep(begin + number * _NEWCOMERS_EACH_S - time.monotonic())
            clients.append(await Client.open(port))
            answers[f"n{number}"] = clients[-1].chat(1, id=f"n{number}")
        await asyncio.gather(*(answer.over.wait() for answer in answers.values()))
    finally:
        for client in clients:
            client.leave()
    return answers


async def _left_alone_at(proxy: Proxy, killed_at: float) -> float:
    """When the proxy last counted an attempt at the dead backend; looks for as long as newcomers arrive."""
    last_at, seen = killed_at, -1.0
    async with await Client.open(proxy.admin_port) as admin:
        while time.monotonic() < killed_at + _AFTER_S:
            count = metric(await admin.get("/metrics"), "llmproxy_attempts_total", backend="b1")
            if count != seen:
                last_at, seen = time.monotonic(), count
            await asyncio.sleep(_LOOK_S)
    return last_at


LAB = Lab("kill", "One of two engines is killed under 200 streams", run)
