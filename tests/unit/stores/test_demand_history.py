"""The history of demand: one suite for every store."""

import pytest

from llmproxy.stores.history import HistoryError, MemoryHistory, SqliteHistory


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    return MemoryHistory() if request.param == "memory" else SqliteHistory(tmp_path / "history.db")


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
