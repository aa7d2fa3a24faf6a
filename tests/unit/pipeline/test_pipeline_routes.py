"""The route table: all that vLLM serves for clients passes, all that controls it does not, however it is spelt."""

import pytest

from llmproxy.core.errors import BadRequest, Forbidden, NotFound
from llmproxy.pipeline.routes import _CONTROL, Dialect, Local, RouteTable, wire_path

INFERENCE = [
    "/v1/chat/completions", "/v1/chat/completions/batch", "/v1/completions", "/v1/embeddings", "/v1/rerank",
    "/v2/rerank", "/rerank", "/v1/score", "/score", "/tokenize", "/detokenize", "/pooling", "/classify",
    "/inference/v1/generate", "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/audio/speech",
    "/v1/responses", "/v1/messages", "/v1/messages/count_tokens",
]  # fmt: skip
OTHER = [
    "/v1/responses/resp_1", "/v1/responses/resp_1/cancel", "/v1/chat/completions/render", "/v1/completions/derender",
    "/v1/messages/batches", "/v1/images/generations", "/v1/files", "/inference/v1/other", "/v1/some/new/route",
]  # fmt: skip
TABLE = RouteTable()


@pytest.mark.parametrize("path", INFERENCE)
def test_inference_passes_and_may_be_repeated(path):
    route = TABLE.match(path.encode())
    assert route.path == path.encode()
    assert route.retryable
    assert route.has_model
    assert route.local is None
    assert route.json is ("/audio/tr" not in path)
    assert route.responses is (path == "/v1/responses")


@pytest.mark.parametrize("path", OTHER)
def test_the_rest_of_the_api_passes_once(path):
    route = TABLE.match(path.encode())
    assert route.path == path.encode()
    assert not route.retryable
    assert not route.json
    assert route.local is None
    assert route.responses is path.startswith("/v1/responses/")
    assert route.has_model is not route.responses


@pytest.mark.parametrize(
    ("path", "local"),
    [
        ("/v1/models", Local.MODELS),
        ("/v1/models/a/b", Local.MODELS),
        ("/health", Local.HEALTH),
        ("/ping", Local.HEALTH),
    ],
)
def test_answered_here(path, local):
    assert TABLE.match(path.encode()).local is local
    assert TABLE.match(path.encode() + b"/").local is local


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/messages/x", "//v1/messages/"])
def test_messages_speak_anthropic(path):
    assert TABLE.match(path.encode()).dialect is Dialect.ANTHROPIC


def test_everything_else_speaks_openai():
    for path in (*INFERENCE, *OTHER):
        if "messages" not in path:
            assert TABLE.match(path.encode()).dialect is Dialect.OPENAI


SPELLINGS = [
    lambda path: path,
    lambda path: path + "/",
    lambda path: path + "//",
    lambda path: "/" + path,
    lambda path: path.replace("/", "//"),
    lambda path: path.replace("/", "/./"),
    lambda path: "/x/.." + path,
    lambda path: "/v1/.." + path,
    lambda path: "/v1/%2e%2e" + path,
    lambda path: "/v1/.%2E" + path,
    lambda path: "/%2e" + path,
    lambda path: path + "/.",
    lambda path: path + "/x/..",
    lambda path: path + "/%2e",
    lambda path: path + "%2F",
    lambda path: "/%" + f"{ord(path[1]):02x}" + path[2:],
    lambda path: "/%" + f"{ord(path[1]):02X}" + path[2:],
    lambda path: "/" + "".join(f"%{ord(letter):02x}" for letter in path[1:]),
    lambda path: path[:-1] + f"%{ord(path[-1]):02x}",
    lambda path: path.replace("_", "%5f"),
]


@pytest.mark.parametrize("path", _CONTROL)
@pytest.mark.parametrize("table", [TABLE, RouteTable(extra={"/": "any"})], ids=["alone", "beside a route for all"])
def test_control_is_closed(path, table):
    for spell in SPELLINGS:
        with pytest.raises(Forbidden):
            table.match(spell(path).encode())


@pytest.mark.parametrize(
    "path",
    ["/", "/admin", "/docs", "/openapi.json", "/invocations", "/v1", "/v3/x", "/version", "/slots", "/props",
     "/xv1/chat", "/SLEEP", "/sleep/now", "/%2573leep", "/.well-known/x"],
)  # fmt: skip
def test_closed_by_default(path):
    with pytest.raises(NotFound):
        TABLE.match(path.encode())


@pytest.mark.parametrize(
    "path", ["/..", "/v1/../..", "/%2e%2e/x", "/v1\\chat", "/v1%5cx", "/v1/%00", "/v1/%0a", "/%7f"]
)
def test_paths_that_could_be_read_differently(path):
    with pytest.raises(BadRequest):
        TABLE.match(path.encode())


def test_opened_by_configuration():
    table = RouteTable(allow=["/sleep", "/metrics/", "/invocations"])
    for path in ("/sleep", "/sleep/", "/%73leep", "/metrics", "/invocations"):
        route = table.match(path.encode())
        assert not route.retryable
        assert not route.has_model
    for path in ("/wake_up", "/slee", "/sleepy"):
        with pytest.raises((Forbidden, NotFound)):
            table.match(path.encode())


def test_routes_of_the_configuration():
    table = RouteTable(
        extra={"/retrieve": "vectors", "/retrieve/deep": "deep", "/v1/embeddings": "vectors", "/x/": "x"}
    )
    for path, pool in {
        "/retrieve": "vectors",
        "/retrieve/": "vectors",
        "/retrieve/it": "vectors",
        "//retrieve": "vectors",
        "/retrieve/deep": "deep",
        "/retrieve/deep/er": "deep",
        "/retrieve/deeper": "vectors",
        "/v1/embeddings": "vectors",
        "/x": "x",
        "/x/y": "x",
        "/v1/chat/completions": None,
    }.items():
        assert table.match(path.encode()).pool == pool, path
    for path in ("/retrieved", "/retriev", "/xy"):
        with pytest.raises(NotFound):
            table.match(path.encode())


def test_a_route_says_where_a_path_goes_and_not_what_it_is():
    table = RouteTable(extra={"/v1/embeddings": "vectors", "/v1/messages": "claude", "/v1/responses": "r"})
    for path in ("/v1/embeddings", "/v1/embeddings/", "//v1/embeddings"):
        route = table.match(path.encode())
        assert (route.pool, route.retryable, route.json, route.has_model) == ("vectors", True, True, True)
    assert table.match(b"/v1/messages/count_tokens").dialect is Dialect.ANTHROPIC
    assert table.match(b"/v1/messages/x").dialect is Dialect.ANTHROPIC
    assert (table.match(b"/v1/responses/r1").responses, table.match(b"/v1/responses/r1").pool) == (True, "r")
    # What is answered here goes to the pool when a route says so.
    for path in (b"/v1/models", b"/v1/models/m", b"/v1/chat/completions"):
        route = RouteTable(extra={"/v1": "all"}).match(path)
        assert (route.pool, route.local) == ("all", None)


def test_a_route_for_all_takes_what_nothing_else_claims():
    table = RouteTable(allow=["/wake_up"], extra={"/": "rest", "/retrieve": "vectors"})
    for path in ("/", "/admin", "/docs", "/v3/x", "/xv1/chat", "/.well-known/x", "/a/b/", "/%61"):
        route = table.match(path.encode())
        assert (route.pool, route.retryable, route.json, route.has_model) == ("rest", False, False, False), path
    assert table.match(b"/retrieve/x").pool == "vectors"
    for path in (*INFERENCE, *OTHER, "/wake_up"):
        assert table.match(path.encode()) == RouteTable(allow=["/wake_up"]).match(path.encode()), path
    for path in ("/v1/models", "/v1/models/m", "/health", "/ping"):
        assert table.match(path.encode()).local is not None, path


@pytest.mark.parametrize("path", ["/metrics/", "/metrics/x", "/metrics//x", "/%6detrics/x", "/sleep/now"])
def test_a_route_for_all_opens_nothing_below_a_closed_path(path):
    with pytest.raises(Forbidden):
        RouteTable(extra={"/": "any"}).match(path.encode())
    assert RouteTable(allow=["/metrics", "/sleep"], extra={"/": "any"}).match(path.encode())


@pytest.mark.parametrize(
    ("raw", "sent"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("//v1//chat", "/v1/chat"),
        ("/v1/./chat/", "/v1/chat/"),
        ("/v1/x/../chat", "/v1/chat"),
        ("/v1/%63hat", "/v1/chat"),
        ("/v1/models/a%2Fb", "/v1/models/a/b"),
        ("/v1/a%20b%3Fc%23d%25", "/v1/a%20b%3Fc%23d%25"),
        ("/v1/%c3%a9", "/v1/%C3%A9"),
        ("/v1/a%2Bb+c", "/v1/a+b+c"),
        ("/v1/%zz", "/v1/%25zz"),
        ("/v1/a:b@c;d=e,f", "/v1/a:b@c;d=e,f"),
    ],
)
def test_what_the_engine_is_sent(raw, sent):
    assert wire_path(raw.encode()) == sent.encode()
