import pytest

from llmproxy.control.sleep_state import (
    ABSENT_FOR_S,
    METRICS_MAX_BYTES,
    TROUBLED_FOR_S,
    Flag,
    SleepCheck,
    SleepGauge,
    SleepUnknownError,
)
from llmproxy.core.clock import ManualClock

PAGE = b"""\
# HELP python_info Python platform information
python_info{version="3.12"} 1.0
# HELP vllm:num_requests_waiting Number of requests waiting.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
# HELP vllm:engine_sleep_state Engine sleep state; awake = 0 means engine is sleeping.
# TYPE vllm:engine_sleep_state gauge
vllm:engine_sleep_state{engine="0",model_name="m",sleep_state="awake"} %s
vllm:engine_sleep_state{engine="0",model_name="m",sleep_state="weights_offloaded"} %s
vllm:engine_sleep_state{engine="0",model_name="m",sleep_state="discard_all"} 0.0
# HELP vllm:kv_cache_usage_perc KV-cache usage.
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
"""
AWAKE_PAGE = PAGE % (b"1.0", b"0.0")
ASLEEP_PAGE = PAGE % (b"0.0", b"1.0")


@pytest.mark.parametrize(("page", "asleep"), [(AWAKE_PAGE, False), (ASLEEP_PAGE, True)])
def test_gauge_is_found_wherever_the_page_is_split(page, asleep):
    for cut in range(len(page) + 1):
        gauge = SleepGauge()
        if not gauge.feed(page[:cut]):
            gauge.feed(page[cut:])
        assert gauge.value is asleep, f"split at {cut}"


def test_gauge_stops_reading_behind_the_metric():
    gauge = SleepGauge()
    seen_enough = [gauge.feed(line) for line in AWAKE_PAGE.splitlines(keepends=True)]
    assert seen_enough.index(True) == AWAKE_PAGE.splitlines().index(b"# HELP vllm:kv_cache_usage_perc KV-cache usage.")


def test_several_engines_sleep_when_all_of_them_do():
    def value(*awake):
        gauge = SleepGauge()
        for engine, figure in enumerate(awake):
            gauge.feed(b'vllm:engine_sleep_state{engine="%d",sleep_state="awake"} %s\n' % (engine, figure))
        return gauge.value

    assert value(b"0.0", b"0") is True
    assert value(b"1.0", b"0.0") is False
    assert value(b"0.0", b"1.0") is False


@pytest.mark.parametrize(
    "line",
    [
        b'vllm:engine_sleep_state{sleep_state="weights_offloaded"} 1.0',
        b'vllm:engine_sleep_state{model_name="sleep_state=\\"awake\\""} 0.0',
        b'vllm:engine_sleep_state{sleep_state="awake"} nonsense',
        b'vllm:engine_sleep_state{sleep_state="awake"}',
        b'vllm:engine_sleep_state_created{sleep_state="awake"} 0',
        b"vllm:engine_sleep_state 0",
    ],
)
def test_what_does_not_say_awake_says_nothing(line):
    gauge = SleepGauge()
    assert gauge.feed(line + b"\n") is False
    assert gauge.value is None


def test_an_endless_page_is_given_up():
    gauge = SleepGauge()
    pieces = 0
    while not gauge.feed(b"x" * 65536):
        pieces += 1
        assert pieces <= METRICS_MAX_BYTES // 65536
    assert gauge.value is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"is_sleeping": true}', True),
        (b'{"is_sleeping":false}', False),
        (b'{"is_sleeping": "yes"}', None),
        (b'{"other": true}', None),
        (b"[1]", None),
        (b"<html>" + b"x" * 9000, None),
    ],
)
def test_flag(text, value):
    flag = Flag("is_sleeping")
    for at in range(0, len(text), 7):
        if flag.feed(text[at : at + 7]):
            break
    assert flag.value is value


class Engine:
    """What an engine answers by path, standing in for its HTTP server; counts what it was asked."""

    def __init__(self, **pages):
        self.pages = {"/" + name: page for name, page in pages.items()}
        self.asked = []

    async def fetch(self, path, reader):
        self.asked.append(path)
        page = self.pages.get(path, 404)
        if isinstance(page, Exception):
            raise page
        if isinstance(page, int):
            return page
        reader.feed(page)
        return 200


def flags(sleeping, paused):
    texts = {True: b"true", False: b"false"}
    return {
        "is_sleeping": b'{"is_sleeping": %s}' % texts[sleeping],
        "is_paused": b'{"is_paused": %s}' % texts[paused],
    }


async def test_dev_mode_routes_are_enough():
    for sleeping, paused in [(False, False), (True, False), (False, True)]:
        engine = Engine(metrics=AWAKE_PAGE, **flags(sleeping, paused))
        assert await SleepCheck(ManualClock()).ask(engine.fetch) is (sleeping or paused)
        assert "/metrics" not in engine.asked


async def test_without_dev_mode_the_gauge_decides_and_the_routes_are_left_alone_for_a_while():
    clock = ManualClock()
    check = SleepCheck(clock)
    engine = Engine(metrics=ASLEEP_PAGE)
    assert await check.ask(engine.fetch) is True
    assert engine.asked == ["/is_sleeping", "/is_paused", "/metrics"]
    engine.asked.clear()
    engine.pages["/metrics"] = AWAKE_PAGE
    assert await check.ask(engine.fetch) is False
    assert engine.asked == ["/metrics"]
    engine.asked.clear()
    clock.advance(ABSENT_FOR_S)
    await check.ask(engine.fetch)
    assert engine.asked == ["/is_sleeping", "/is_paused", "/metrics"]


@pytest.mark.parametrize("asleep", [True, False])
async def test_what_the_scraper_read_a_moment_ago_need_not_be_read_again(asleep):
    check = SleepCheck(ManualClock())
    engine = Engine(metrics=AWAKE_PAGE if asleep else ASLEEP_PAGE)
    assert await check.ask(engine.fetch, asleep) is asleep
    assert "/metrics" not in engine.asked
    assert await check.ask(engine.fetch) is not asleep


async def test_the_routes_know_better_than_the_gauge():
    for sleeping, paused in [(True, False), (False, True), (False, False)]:
        check = SleepCheck(ManualClock())
        assert await check.ask(Engine(**flags(sleeping, paused)).fetch, not sleeping) is (sleeping or paused)


async def test_a_server_that_cannot_say_is_awake_and_soon_left_alone():
    check = SleepCheck(ManualClock())
    engine = Engine(metrics=b"llamacpp:requests_processing 0\n", is_sleeping=b"<html>", is_paused=405)
    assert await check.ask(engine.fetch) is False
    engine.asked.clear()
    assert await check.ask(engine.fetch) is False
    assert engine.asked == []


@pytest.mark.parametrize("trouble", [TimeoutError(), 500])
async def test_trouble_keeps_the_last_answer_and_is_no_proof_of_absence(trouble):
    clock = ManualClock()
    check = SleepCheck(clock)
    engine = Engine(**flags(True, False))
    await check.ask(engine.fetch)
    engine.pages["/is_sleeping"] = trouble
    with pytest.raises((TimeoutError, SleepUnknownError)):
        await check.ask(engine.fetch)
    assert check.asleep is True
    engine.pages |= {"/" + name: page for name, page in flags(False, False).items()}
    clock.advance(TROUBLED_FOR_S)
    assert await check.ask(engine.fetch) is False


async def test_a_server_that_may_be_shutting_down_is_not_asked_again_at_once():
    clock = ManualClock()
    check = SleepCheck(clock)
    engine = Engine(**flags(True, False) | {"is_sleeping": 500})
    for _ in range(3):
        with pytest.raises(SleepUnknownError):
            await check.ask(engine.fetch)
        clock.advance(TROUBLED_FOR_S / 4)
    assert engine.asked == ["/is_sleeping"]
    check.forget()
    with pytest.raises(SleepUnknownError):
        await check.ask(engine.fetch)
    assert engine.asked == ["/is_sleeping", "/is_sleeping"]


async def test_a_restarted_server_is_asked_everything_again():
    check = SleepCheck(ManualClock())
    await check.ask(Engine(metrics=ASLEEP_PAGE).fetch)
    check.forget()
    assert check.asleep is False
    engine = Engine(**flags(True, False))
    assert await check.ask(engine.fetch) is True
