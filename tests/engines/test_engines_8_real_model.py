"""Two engines with a real model behind them: what it says makes sense, and a killed engine does not change that."""

from collections.abc import Iterator

import pytest

from tests.engines.asking import Asking, chat, error_in, is_finished, proxy_over
from tests.engines.vllm_server import REAL, Engines
from tests.harness.stage import Stage
from tests.harness.waiting import until

pytestmark = pytest.mark.engines

CAPITAL = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
STREAMS = 12


@pytest.fixture(scope="module")
def real(engines: Engines) -> Iterator[Engines]:
    """Two servers with the real model, in place of the other two. It takes them longer to start, and to answer."""
    engines.destroy()
    real = Engines(engines.directory, REAL, engines.logs / "real")
    yield real
    real.destroy()


async def test_it_knows_what_it_is_talking_about(real: Engines, stage: Stage) -> None:
    await real.up()
    proxy = await proxy_over(stage, *real.both)
    question = chat(8, messages=CAPITAL, ignore_eos=False)
    for _ in range(2):
        whole = await stage.ask(proxy, question)
        assert "Paris" in whole.json["choices"][0]["message"]["content"]
        streamed = await stage.ask(proxy, question | {"stream": True})
        assert "Paris" in streamed.text
        assert streamed.events[-1] == "[DONE]"


async def test_an_engine_is_killed_while_it_talks(real: Engines, stage: Stage) -> None:
    await real.up()
    proxy = await proxy_over(stage, *real.both)
    story = [{"role": "user", "content": "Tell me a story about a fox."}]
    talks = [Asking(proxy.port, chat(40, messages=story, stream=True)) for _ in range(STREAMS)]
    await until(lambda: any(talk.backend == "a" and talk.has_token for talk in talks), "words from a", 60.0)
    late = [Asking(proxy.port, chat(20, messages=story, stream=True)) for _ in range(STREAMS)]
    await until(lambda: proxy.backend("a").load.in_flight == STREAMS, "more work for a")
    real.a.kill_api_server()
    cut = 0
    for talk in talks + late:
        answer = await talk.ended()
        assert (answer.status, answer.cut) == (200, False)
        if error_in(answer) is None:
            assert is_finished(answer)
            assert len(answer.text.split()) > 5
        else:
            assert (talk.backend, talk.has_token) == ("a", True)
            cut += 1
    assert 0 < cut <= STREAMS
    assert (await stage.ask(proxy, chat(4, messages=story))).header("x-llmproxy-backend") == "b"
