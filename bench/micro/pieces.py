"""The pieces: each function makes what it needs and returns the call to be timed. One line in `PIECES` adds one."""

import json
import random
from collections.abc import Callable

import httptools
import msgspec

from llmproxy.core.backend import Backend, BackendSpec
from llmproxy.core.lease import Lease
from llmproxy.core.ports import Moment
from llmproxy.core.prompt import Prompt
from llmproxy.core.request import Request
from llmproxy.pipeline.body import decode, with_model
from llmproxy.pipeline.ids import RequestIds
from llmproxy.pipeline.prompts import prompt_of
from llmproxy.policy.routing.expected_cost import ExpectedCost, ExpectedCostOptions
from llmproxy.policy.routing.least_connections import LeastConnections
from llmproxy.policy.routing.options import NoOptions
from llmproxy.telemetry.line import LineEncoder
from llmproxy.telemetry.metrics import Histogram
from llmproxy.telemetry.record import AccessRecord

Call = Callable[[], object]
_HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: OpenAI/Python 1.99.1\r\n"
    b"Accept: application/json\r\nAuthorization: Bearer sk-0123456789abcdef\r\nContent-Type: application/json\r\n"
    b"X-Stainless-Lang: python\r\nX-Stainless-Retry-Count: 0\r\nContent-Length: 0\r\n\r\n"
)


class _Collect:
    """A parser's target that keeps the headers, as the data plane does."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_message_complete(self) -> None:
        self.headers = []


def _body(prompt_chars: int) -> bytes:
    message = {"role": "user", "content": "x" * prompt_chars}
    return json.dumps({"model": "gpt-4o", "messages": [message], "stream": True}).encode()


def parse_head() -> Call:
    parser = httptools.HttpRequestParser(_Collect())
    return lambda: parser.feed_data(_HEAD)


def decode_1kb() -> Call:
    body = _body(1_000)
    return lambda: decode(body)


def decode_123kb() -> Call:
    body = _body(123_000)
    return lambda: decode(body)


def decode_123kb_json() -> Call:
    body = _body(123_000)
    return lambda: json.loads(body)


def rewrite_1kb() -> Call:
    body = _body(1_000)
    return lambda: with_model(body, "llama-3-8b")


def request_id() -> Call:
    return RequestIds().new


def pick_of_8() -> Call:
    policy = LeastConnections(NoOptions(), random.Random(1))
    backends = [Backend(BackendSpec(str(number), f"http://10.0.0.{number}:8000")) for number in range(8)]
    request = Request()
    return lambda: policy.pick(backends, request, 0.0)


def _fleet_of_64(body: bytes) -> tuple[ExpectedCost, list[Backend]]:
    """Backends with requests in flight and prompts in their caches, an eighth of them the beginning of this one."""
    rng = random.Random(1)
    policy = ExpectedCost(ExpectedCostOptions(), rng)
    backends = [Backend(BackendSpec(str(number), f"http://10.0.0.{number}:8000")) for number in range(64)]
    for number, backend in enumerate(backends):
        for turn in range(rng.randrange(1, 12)):
            blocks = prompt_of(body, "m").blocks[:16] if number % 8 == 0 and not turn else [rng.getrandbits(64)]
            placed = Request(model="m", stream=True, prompt=lambda blocks=blocks: Prompt(2048 * len(blocks), blocks))
            policy.pick([backend], placed, 0.0)
            policy.observe(Moment.SENT, backend, placed, 0.0)
            backend.load.enter()
            if turn:
                policy.observe(Moment.FIRST_TOKEN, backend, placed, 1.0)
    return policy, backends


def pick_of_64() -> Call:
    """`expected_cost`: match and score, without the hash."""
    body = _body(36_000)
    policy, backends = _fleet_of_64(body)
    request = Request(model="m", prompt=lambda: prompt_of(body, "m"))
    return lambda: policy.pick(backends, request, 2.0)


def decide_of_64() -> Call:
    """The same with the hash of a 36 KB prompt: all that a decision costs."""
    body = _body(36_000)
    policy, backends = _fleet_of_64(body)
    return lambda: policy.pick(backends, Request(model="m", prompt=lambda: prompt_of(body, "m")), 2.0)


def lease() -> Call:
    backend = Backend(BackendSpec("one", "http://10.0.0.1:8000"))

    def hold() -> None:
        with Lease(backend, _nothing):
            pass

    return hold


def _nothing() -> None:
    return None


def observe() -> Call:
    histogram = Histogram((0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0))
    return lambda: histogram.observe(0.07)


def access_record() -> Call:
    return lambda: AccessRecord(1.7e9, "0" * 32, "127.0.0.1", "POST", b"/v1/chat/completions", "llama", "gpt-4o")


def access_line() -> Call:
    encoder = LineEncoder()
    return lambda: encoder.encode(
        [AccessRecord(1.7e9, "0" * 32, "127.0.0.1", "POST", b"/v1/chat/completions", "llama", "gpt-4o")]
    )


def usage_of_event() -> Call:
    event = b'{"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":" the"}}]}'
    decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
    return lambda: decoder.decode(event)


PIECES: tuple[Callable[[], Call], ...] = (
    parse_head,
    decode_1kb,
    decode_123kb,
    decode_123kb_json,
    rewrite_1kb,
    request_id,
    pick_of_8,
    pick_of_64,
    decide_of_64,
    lease,
    observe,
    access_record,
    access_line,
    usage_of_event,
)
