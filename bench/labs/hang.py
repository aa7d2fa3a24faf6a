"""A backend that is well when probed, accepts every request and never answers: after `timeouts.first_byte` they are
answered by the other one, and before long the backend is asked no more.

The proxy looks at its timeouts ten times a second, so up to a tenth of a second above the setting is as designed.
"""

import asyncio

from bench.labs.answer import Answer
from bench.labs.base import Finding, Lab, ms, never, no_less_than, no_more_than
from bench.labs.stage import Stage, until

_FIRST_BYTE_S = 1.0
_ENGINE_MS = 50
_TOGETHER = 16


async def run(stage: Stage) -> list[Finding]:
    options = ["--ttft", str(_ENGINE_MS)]
    engines = await stage.engines([*options, "--fail", "hang"], options)
    config = stage.config(engines, pool={"timeouts": {"first_byte": f"{_FIRST_BYTE_S:g}s"}})
    proxy = await stage.proxy(config)
    clients = await stage.clients(proxy.port, _TOGETHER)
    answers: dict[str, Answer] = {}
    for turn in range(2):
        asked = {f"t{turn}-{number}": number for number in range(_TOGETHER)}
        turns = {id: clients[number].chat(1, stream=bool(number % 2), id=id) for id, number in asked.items()}
        await asyncio.gather(*(answer.over.wait() for answer in turns.values()))
        answers |= turns
    await until(lambda: len(config.log()) == len(answers), "the access log")
    retried = {str(line["request_id"]): answers[line["request_id"]] for line in config.log() if line["retries"]}
    above_s = [one.first_at - one.sent_at - _FIRST_BYTE_S - _ENGINE_MS / 1e3 for one in retried.values()]
    flaws = {id: one.flaw(1, stream=int(id.partition("-")[2]) % 2 == 1) for id, one in answers.items()}
    return [
        never("failed", (f"{id}: {flaw}" for id, flaw in flaws.items() if flaw)),
        no_less_than("failed over at first", sum(id.startswith("t0-") for id in retried), 5),
        no_more_than("still sent there afterwards", sum(id.startswith("t1-") for id in retried), 0),
        no_more_than("failed over above first_byte and the engine's TTFT", ms(max(above_s, default=0.0)), 250, "ms"),
    ]


LAB = Lab("hang", "A backend that accepts and never answers", run)
