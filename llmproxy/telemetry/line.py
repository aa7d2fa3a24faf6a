"""Records to JSON lines. Runs in the writer thread; a line holds no byte that could end it or drive a terminal."""

import re
from collections.abc import Sequence
from time import gmtime, strftime

import msgspec

from llmproxy.telemetry.prefix_hashes import hide_prompts
from llmproxy.telemetry.record import AccessRecord

STRING_MAX_CHARS = 1024
"""Longest string in a line; what is longer is cut and marked."""

# JSON escapes C0 itself. DEL and C1 drive terminals, and some readers end lines at NEL, U+2028 and U+2029.
_UNSAFE = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")
_STRINGS = (
    "request_id",
    "client",
    "method",
    "path",
    "pool",
    "model",
    "backend",
    "tokens_source",
    "outcome",
    "error",
    "tenant",
    "key",
)


class LineEncoder:
    """Encodes batches; remembers the current second's text. With a `prefix_key`, hashes of prompts are under it."""

    def __init__(self, prefix_key: bytes = b"") -> None:
        self._prefix_key = prefix_key
        self._encoder = msgspec.json.Encoder()
        self._second = -1
        self._second_text = ""
        self.failed = 0
        """Records that could not be encoded at all (a defect in the caller), left out."""

    def encode(self, records: Sequence[AccessRecord]) -> bytes:
        """One line for each record, each ending in a newline. Finishes the records in place."""
        if self._prefix_key:
            hide_prompts(records, self._prefix_key)
        try:
            for record in records:
                self._finish(record)
            data = self._encoder.encode_lines(records)
        except Exception:
            data = b"".join(map(self._encode_odd, records))
        if data.isascii() and b"\x7f" not in data:
            return data
        return _UNSAFE.sub(_escape, data)

    def _finish(self, record: AccessRecord) -> None:
        time = record.time
        if not isinstance(time, str):
            record.time = self._stamp(time)
        path = record.path
        if isinstance(path, bytes):
            path = record.path = path.decode("utf-8", "backslashreplace")
        if "?" in path:
            path = record.path = path.partition("?")[0]
        if len(path) > STRING_MAX_CHARS:
            record.path = _cut(path)
        model = record.model
        if model is not None and len(model) > STRING_MAX_CHARS:
            record.model = _cut(model)
        if len(record.request_id) > STRING_MAX_CHARS:
            record.request_id = _cut(record.request_id)

    def _stamp(self, unix_s: float) -> str:
        millis = int(unix_s * 1000)
        second = millis // 1000
        if second != self._second:
            self._second_text = strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))
            self._second = second
        # Not ":03d", which asks the number to format itself.
        return f"{self._second_text}.{str(1000 + millis % 1000)[1:]}Z"

    def _encode_odd(self, record: AccessRecord) -> bytes:
        """A record of a batch that could not be encoded: one of them holds lone surrogates or bytes."""
        try:
            for name in _STRINGS:
                value = getattr(record, name)
                if value is not None:
                    setattr(record, name, _text(value))
            record.retries = [_text(cause) for cause in record.retries]
            self._finish(record)
            return self._encoder.encode(record) + b"\n"
        except Exception:
            self.failed += 1
            return b""


def _text(value: object) -> str:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("utf-8", "backslashreplace")
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def _cut(text: str) -> str:
    return text[:STRING_MAX_CHARS] + "..."


def _escape(match: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(match[0].decode())
