"""What a request captures of the configuration: its target, and who may speak for other clients."""

import pytest

from llmproxy.config.model import Config
from llmproxy.core.errors import BadRequest, NotFound
from llmproxy.core.pool import Pool
from llmproxy.pipeline.routes import Route
from llmproxy.pipeline.snapshot import Snapshot


def snapshot(pools=("a",), **sections):
    server = sections.pop("server", {})
    config = Config.model_validate(
        {"server": server, "pools": {name: {"backends": ["http://127.0.0.1:1"]} for name in pools}, **sections}
    )
    return Snapshot(config, {name: Pool(name, config.pools[name], None, None, None, None) for name in pools})


CHAT = Route(b"/v1/chat/completions")
ANY = Route(b"/tokenize", has_model=False)


def test_one_pool_without_models_takes_everything():
    made = snapshot()
    assert {made.target(CHAT, model).pool.name for model in (None, "x", "")} == {"a"}


def test_models_and_aliases():
    made = snapshot(("a", "b"), models={"m": {"pool": "a"}, "alias": {"pool": "b", "rewrite": "m"}})
    assert (made.target(CHAT, "m").pool.name, made.target(CHAT, "m").rewrite) == ("a", None)
    assert (made.target(CHAT, "alias").pool.name, made.target(CHAT, "alias").rewrite) == ("b", "m")
    with pytest.raises(NotFound) as raised:
        made.target(CHAT, "x" * 1000)
    assert raised.value.code == "model_not_found"
    assert len(raised.value.message) < 300
    with pytest.raises(BadRequest):
        made.target(CHAT, None)
    with pytest.raises(NotFound):
        made.target(ANY, None)


def test_one_pool_with_models():
    made = snapshot(models={"m": {"pool": "a"}})
    assert made.target(CHAT, None).pool.name == "a"
    with pytest.raises(NotFound):
        made.target(CHAT, "other")


def test_routes_choose_their_pool():
    made = snapshot(("a", "b"), routes=[{"path": "/retrieve", "pool": "b"}])
    assert made.target(made.routes.match(b"/retrieve/x"), None).pool.name == "b"


def test_a_route_for_all_takes_requests_that_name_no_model():
    rest = {"routes": [{"path": "/", "pool": "b"}, {"path": "/v1/embeddings", "pool": "a"}]}
    # Without models it is all that tells where requests go.
    made = snapshot(("a", "b"), **rest)
    assert {made.target(CHAT, model).pool.name for model in (None, "x", "")} == {"b"}
    assert made.target(made.routes.match(b"/v1/embeddings"), "x").pool.name == "a"
    assert made.target(made.routes.match(b"/anything"), None).pool.name == "b"
    # Models come first, and a name that is none of them is still a mistake.
    made = snapshot(("a", "b"), models={"m": {"pool": "a"}}, **rest)
    assert made.target(CHAT, "m").pool.name == "a"
    with pytest.raises(NotFound, match="does not exist"):
        made.target(CHAT, "x")
    assert made.target(CHAT, None).pool.name == "b"
    assert made.target(ANY, None).pool.name == "b"


TRUSTED = {"trusted_proxies": ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]}


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", None, "203.0.113.9"),
        ("203.0.113.9", b"198.51.100.1", "203.0.113.9"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", b"198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", b"6.6.6.6, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", b"6.6.6.6,198.51.100.1 , 10.2.3.4,192.0.2.1", "198.51.100.1"),
        ("10.0.0.1", b"10.0.0.9, 10.0.0.8", "10.0.0.9"),
        ("10.0.0.1", b"", "10.0.0.1"),
        ("10.0.0.1", b" , ,", "10.0.0.1"),
        ("10.0.0.1", b"198.51.100.1, nonsense", "nonsense"),
        ("10.0.0.1", b"198.51.100.1:50000", "198.51.100.1"),
        ("10.0.0.1", b"198.51.100.1, 10.0.0.7:443", "198.51.100.1"),
        ("10.0.0.1", b"[2001:db9::7]:50000", "2001:db9::7"),
        ("10.0.0.1", b"[2001:db9::7]", "2001:db9::7"),
        ("10.0.0.1", b"2001:db9::7", "2001:db9::7"),
        ("10.0.0.1", b"::ffff:198.51.100.1", "::ffff:198.51.100.1"),
        ("10.0.0.1", b"198.51.100.1, ::ffff:10.3.3.3", "198.51.100.1"),
        ("::ffff:10.0.0.1", b"198.51.100.1", "198.51.100.1"),
        ("2001:db8::7", b"198.51.100.1", "198.51.100.1"),
        ("2001:db9::7", b"198.51.100.1", "2001:db9::7"),
        ("", b"198.51.100.1", ""),
    ],
)
def test_whose_request_it_is(peer, forwarded, client):
    made = snapshot(server=TRUSTED)
    for _ in range(2):
        assert made.client_ip(peer, forwarded) == client


def test_nobody_is_trusted_by_default():
    made = snapshot()
    assert not made.is_trusted("127.0.0.1")
    assert made.client_ip("10.0.0.1", b"198.51.100.1") == "10.0.0.1"


def test_what_clients_write_is_not_kept_without_bound():
    made = snapshot(server=TRUSTED)
    made.is_trusted("x" * 1000)
    assert not made._trusted
    for number in range(10_100):
        made.is_trusted(f"x{number}")
    assert len(made._trusted) == 10_000
    assert made.is_trusted("10.1.1.1")
