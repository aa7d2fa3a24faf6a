"""Prometheus' text format, of which only the samples with the wanted names are looked at, as the page arrives.

Nearly all lines of a metrics page are histogram buckets and comments: they cost a search for a brace and a look-up.
"""

import re
from collections.abc import Collection, Mapping
from math import isfinite
from typing import NamedTuple

PAGE_MAX_BYTES = 4 * 1024 * 1024
LINE_MAX_BYTES = 64 * 1024
_LABEL = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?')
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n"}


class Sample(NamedTuple):
    """One line: a name, its labels, a finite value."""

    name: str
    labels: Mapping[str, str]
    value: float


class Samples:
    """Takes a page in pieces (`feed` is a `Reader`'s); `whole` gives what was wanted of it, in the page's order. Lines
    that are not in the format, and values that are no numbers (NaN is how exporters say unknown), are left out."""

    __slots__ = ("_fed_bytes", "_found", "_rest", "_wanted", "too_long")

    def __init__(self, wanted: Collection[bytes]) -> None:
        self._wanted = wanted
        self._found: list[Sample] = []
        self._rest = b""
        self._fed_bytes = 0
        self.too_long = False

    def feed(self, data: bytes) -> bool:
        """True when it has had enough: nobody's metrics are that long."""
        self._fed_bytes += len(data)
        lines = (self._rest + data).split(b"\n") if self._rest else data.split(b"\n")
        self._rest = lines.pop()
        wanted = self._wanted
        for line in lines:
            brace = line.find(b"{")
            name = line[:brace] if brace >= 0 else line.partition(b" ")[0]
            if name in wanted:
                self._take(line, name, brace)
        self.too_long = self._fed_bytes > PAGE_MAX_BYTES or len(self._rest) > LINE_MAX_BYTES
        return self.too_long

    def whole(self) -> list[Sample]:
        """The page is over."""
        if self._rest and not self.too_long:
            self.feed(b"\n")
        return self._found

    def _take(self, line: bytes, name: bytes, brace: int) -> None:
        labels: dict[str, str] = {}
        rest = line[len(name) :]
        if brace >= 0:
            text, closed, rest = rest[1:].rpartition(b"}")
            found = _labels(text.decode("utf-8", "replace")) if closed else None
            if found is None:
                return
            labels = found
        try:
            value = float(rest.split()[0])
        except (ValueError, IndexError):
            return
        if isfinite(value):
            self._found.append(Sample(name.decode(), labels, value))


def _labels(text: str) -> dict[str, str] | None:
    """The labels between the braces; None when that is not what stands there."""
    labels = {}
    at = 0
    while at < len(text):
        match = _LABEL.match(text, at)
        if match is None:
            return None
        value = match[2]
        labels[match[1]] = _ESCAPE.sub(_unescaped, value) if "\\" in value else value
        at = match.end()
    return labels


def _unescaped(match: re.Match[str]) -> str:
    return _ESCAPED.get(match[1], match[1])
