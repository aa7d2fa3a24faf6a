"""The history of demand: one suite for every store."""

import pytest

from llmproxy.stores.history import HistoryError, MemoryHistory, SqliteHistory
from llmproxy.stores.history_redis import RedisHistory
from tests.harness.redis_server import RedisServer


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def redis_history():
    """Of a URL; closed in the end."""
    made = []

    def make(url, **options):
        made.append(RedisHistory(url, **options))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request, tmp_path, redis_history):
    if request.param == "memory":
        return MemoryHistory()
    if request.param == "sqlite":
        return SqliteHistory(tmp_path / "history.db")
    server = request.getfixturevalue("server")
    server.client().flushall()
    return redis_history(server.url)


def test_what_was_appended_is_read_in_order(store):
    assert store.read("a", 0) == []
    store.append("a", [(3, (1.5, None, 2.0)), (2, (1.0, None, None))], 0)
    store.append("b", [(2, (9.0, None, None))], 0)
    assert store.read("a", 0) == [(2, (1.0, None, None)), (3, (1.5, None, 2.0))]
    assert store.read("a", 3) == [(3, (1.5, None, 2.0))]


def test_a_minute_is_replaced_and_old_ones_are_forgotten(store):
    store.append("a", [(number, (float(number), None, None)) for number in range(10)], 0)
    store.append("a", [(9, (90.0, None, None))], 8)
    assert store.read("a", 0) == [(8, (8.0, None, None)), (9, (90.0, None, None))]


def test_it_outlives_the_process(tmp_path):
    SqliteHistory(tmp_path / "history.db").append("a", [(1, (1.0, 2.0, 3.0))], 0)
    assert SqliteHistory(tmp_path / "history.db").read("a", 0) == [(1, (1.0, 2.0, 3.0))]


def test_a_file_that_is_none_is_an_error_in_words(tmp_path):
    (tmp_path / "history.db").write_text("no database " * 100)
    store = SqliteHistory(tmp_path / "history.db")
    with pytest.raises(HistoryError, match=r"history\.db"):
        store.read("a", 0)
    with pytest.raises(HistoryError):
        store.append("a", [(1, (1.0, None, None))], 0)


def test_facts_are_replaced_and_forgotten(store):
    assert store.fact("a", "spent") is None
    store.remember("a", "spent", "1")
    store.remember("b", "spent", "9")
    store.remember("a", "spent", "2")
    assert store.fact("a", "spent") == "2"
    store.remember("a", "spent", None)
    store.remember("a", "never", None)
    assert (store.fact("a", "spent"), store.fact("b", "spent")) == (None, "9")


def test_another_proxy_reads_what_one_wrote_to_redis(server, redis_history):
    server.client().flushall()
    one, other = redis_history(server.url), redis_history(server.url)
    one.append("a", [(7, (1.25, None, 3.0))], 0)
    one.remember("a", "spent", "5")
    assert other.read("a", 0) == [(7, (1.25, None, 3.0))]
    assert other.fact("a", "spent") == "5"


def test_what_others_left_in_redis_is_passed_over(server, redis_history):
    client = server.client()
    client.flushall()
    for member, score in {"nonsense": 1, "2:[1.0, null": 2, "3:7": 3, "x:[1.0]": 4}.items():
        client.zadd("llmproxy:scaling:{a}:minutes", {member: score})
    store = redis_history(server.url)
    store.append("a", [(5, (1.0, None, None))], 0)
    assert store.read("a", 0) == [(5, (1.0, None, None))]


def test_a_redis_that_is_away_is_an_error_in_words_and_comes_back(tmp_path, redis_history):
    with RedisServer(tmp_path) as own:
        secret = redis_history(own.url.replace("redis://", "redis://:sesame@"), timeout_s=0.2)
        plain = redis_history(own.url, timeout_s=0.2)
        plain.remember("a", "spent", "1")
        own.freeze()
        with pytest.raises(HistoryError, match="Redis"):
            plain.fact("a", "spent")
        own.resume()
        assert plain.fact("a", "spent") == "1"
        own.kill()
        for call in (
            lambda: plain.read("a", 0),
            lambda: plain.append("a", [(1, (1.0, None, None))], 0),
            lambda: plain.fact("a", "spent"),
            lambda: plain.remember("a", "spent", "2"),
        ):
            with pytest.raises(HistoryError, match="Redis"):
                call()
        with pytest.raises(HistoryError) as caught:
            secret.fact("a", "spent")
        assert "sesame" not in str(caught.value)
        own.start()
        plain.remember("a", "spent", "3")
        assert plain.fact("a", "spent") == "3"


def test_reading_makes_no_file(tmp_path):
    assert SqliteHistory(tmp_path / "state" / "history.db").read("p", 0) == []
    assert list(tmp_path.iterdir()) == []
