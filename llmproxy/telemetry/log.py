"""The proxy's own log: the standard library's `llmproxy` logger, as text on standard error.

The root logger is left alone. A line never holds a control character of a client's making, and a reader of standard
error that stopped reading makes lines go missing, not the event loop stand still.
"""

import logging
import os
import re
import select
import stat
import sys
import time
from typing import TextIO

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z WARNING llmproxy.control: message`."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._colour = colour

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the base class's name)
        text = _BREAKS.sub(_escape, super().formatMessage(record))
        colour = _COLOURS.get(record.levelno) if self._colour else None
        return f"{colour}{text}\x1b[0m" if colour else text

    def formatException(self, ei: object) -> str:  # noqa: N802
        return _CONTROLS.sub(_escape, super().formatException(ei))  # type: ignore[arg-type]


class TextHandler(logging.StreamHandler[TextIO]):
    """Writes to `stream` unless that would wait for its reader; counts what it left out."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.setFormatter(TextFormatter(colour=stream.isatty() and "NO_COLOR" not in os.environ))
        self.dropped = 0
        self._can_block = _can_block(stream)

    def emit(self, record: logging.LogRecord) -> None:
        if self._can_block and not self._has_room():
            self.dropped += 1
            return
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if not self._can_block or len(text) * 4 < select.PIPE_BUF:
            return text
        # A writable pipe takes PIPE_BUF bytes without waiting, no more. Of a traceback the end says most.
        data = text.encode("utf-8", "backslashreplace")
        if len(data) >= select.PIPE_BUF:
            data = data[:1000] + b" ... " + data[-(select.PIPE_BUF - 1010) :]
        return data.decode("utf-8", "ignore")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A full disk or a closed pipe: there is nowhere left to say so."""
        self.dropped += 1

    def _has_room(self) -> bool:
        try:
            poller = select.poll()
            poller.register(self.stream.fileno(), select.POLLOUT)
            return bool(poller.poll(0))
        except (OSError, ValueError):
            return False


def configure(level: str, stream: TextIO | None = None) -> logging.Logger:
    """Set the `llmproxy` logger up (again): `level` as in the configuration, to `stream` (standard error)."""
    logger = logging.getLogger("llmproxy")
    for handler in list(logger.handlers):
        if isinstance(handler, (TextHandler, logging.NullHandler)):
            logger.removeHandler(handler)
    # None when the process was started with standard error closed.
    target = stream or sys.stderr
    logger.addHandler(logging.NullHandler() if target is None else TextHandler(target))
    logger.setLevel(level.upper())
    logger.propagate = False
    return logger


def _can_block(stream: TextIO) -> bool:
    try:
        return not stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
