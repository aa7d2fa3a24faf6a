import io
import logging
import os
import pty
from collections.abc import Iterator

import pytest

from llmproxy.telemetry.log import TextHandler, configure


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    logger = logging.getLogger("llmproxy")
    before = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before
    logger.setLevel(logger.level)


def said(level: str, log: logging.Logger, message: str, *args: object) -> str:
    stream = io.StringIO()
    configure(level, stream)
    log.warning(message, *args)
    return stream.getvalue()


LOG = logging.getLogger("llmproxy.control.test")


def test_a_line_names_time_level_and_room() -> None:
    text = said("info", LOG, "pool %s lost %d backends", "llama", 2)
    time, _, rest = text.partition(" ")
    assert rest == "WARNING llmproxy.control.test: pool llama lost 2 backends\n"
    assert (time[4], time[10], time[-5], time[-1]) == ("-", "T", ".", "Z")


def test_level_is_kept_and_can_be_changed() -> None:
    assert said("error", LOG, "hidden") == ""
    assert "shown" in said("warning", LOG, "shown")


def test_root_logger_is_left_alone() -> None:
    root = logging.getLogger()
    before = list(root.handlers), root.level
    seen: list[logging.LogRecord] = []
    other = logging.Handler()
    other.emit = seen.append  # type: ignore[method-assign]
    root.addHandler(other)
    try:
        said("info", LOG, "once")
    finally:
        root.removeHandler(other)
    assert seen == []
    assert (root.handlers, root.level) == before


def test_configuring_again_replaces_our_handler_and_no_other() -> None:
    logger = logging.getLogger("llmproxy")
    other = logging.StreamHandler(io.StringIO())
    logger.addHandler(other)
    first, second = io.StringIO(), io.StringIO()
    configure("info", first)
    configure("info", second)
    LOG.warning("hello")
    assert (first.getvalue(), second.getvalue().count("hello")) == ("", 1)
    assert other in logger.handlers


def test_message_of_a_clients_making_stays_one_harmless_line() -> None:
    text = said("info", LOG, "model %r", Odd())
    assert text.count("\n") == 1
    assert text.endswith("model a\\x0ab\\x1b[2J\\x9b2J\\u2028c\n")


class Odd:
    def __repr__(self) -> str:
        return "a\nb\x1b[2J\x9b2J\u2028c"


def test_traceback_keeps_its_lines_but_no_controls() -> None:
    stream = io.StringIO()
    configure("info", stream)
    try:
        raise ValueError("bad \x1b[2J")
    except ValueError:
        LOG.exception("it failed")
    lines = stream.getvalue().splitlines()
    assert lines[1].startswith("Traceback")
    assert lines[-1] == "ValueError: bad \\x1b[2J"


def on_terminal() -> str:
    leader, follower = pty.openpty()
    with open(follower, "w") as stream:
        configure("info", stream)
        LOG.warning("hello")
        LOG.info("plain")
        text = os.read(leader, 4096).decode()
    os.close(leader)
    return text


def test_colour_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[33m" in on_terminal()
    assert "\x1b" not in said("info", LOG, "hello")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in on_terminal()


def handler() -> TextHandler:
    found = [one for one in logging.getLogger("llmproxy").handlers if isinstance(one, TextHandler)]
    assert len(found) == 1
    return found[0]


def test_reader_that_stops_reading_makes_lines_go_missing() -> None:
    reader, writer = os.pipe()
    with open(writer, "w") as stream:
        configure("info", stream)
        LOG.warning("first")
        for _ in range(100_000):
            LOG.warning("x" * 1000)
            if handler().dropped:
                break
        assert handler().dropped == 1
        LOG.error("while it is full")
        assert handler().dropped == 2
        os.read(reader, 1 << 20)
        LOG.warning("last")
        assert b"last" in os.read(reader, 1 << 20)
    os.close(reader)


def test_long_traceback_fits_what_a_pipe_takes_at_once() -> None:
    reader, writer = os.pipe()
    with open(writer, "w") as stream:
        configure("info", stream)
        LOG.warning("begin " + "\u00e9" * 5000 + " end")
        data = os.read(reader, 1 << 20)
    os.close(reader)
    assert len(data) <= 4096
    assert b"begin" in data
    assert data.endswith(b" end\n")


def test_closed_or_full_standard_error_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        configure("info", full)
        LOG.warning("hello")
        assert handler().dropped == 1
        monkeypatch.setattr(logging.getLogger("llmproxy"), "handlers", [])
        with pytest.raises(OSError, match="No space"):
            full.flush()
        os.dup2(os.open("/dev/null", os.O_WRONLY), full.fileno())
    stream = io.StringIO()
    configure("info", stream)
    stream.close()
    LOG.warning("hello")
    assert handler().dropped == 1


def test_no_standard_error_at_all(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr", None)
    configure("info")
    LOG.warning("hello")
    assert capfd.readouterr().err == ""
