"""What the chunks of one stream have in common, so that the next one need not be searched.

An engine writes a stream's chunks alike but for the text of one JSON string. Where all around that string is as in a
chunk that was searched, and no quote is in the string, nothing can be in the new one that was not in the old: neither
a key nor the end of an event.
"""

import re
from typing import Final

_TEXT: Final = re.compile(rb'"(?:content|text|delta)": ?"')
_TRIES: Final = 8
"""Streams whose chunks are not alike are given up after so many."""


class Shape:
    """`learn` from a chunk that was searched and found to be one harmless event; then `fits` tells others like it."""

    __slots__ = ("_after", "_before", "_tries")

    def __init__(self) -> None:
        self._before = b""
        self._after = b""
        self._tries = 0

    def fits(self, body: bytes) -> bool:
        """Whether `body` differs from what was learned in nothing but the string's text."""
        before, after = self._before, self._after
        if not before:
            return False
        # Slices, because compiled they are cheaper than a call of `startswith`; this is once a chunk.
        start, end = len(before), len(body) - len(after)
        return (
            start <= end and body[:start] == before and body[end:] == after and not body[start:end].partition(b'"')[1]
        )

    def learn(self, body: bytes) -> None:
        """Take `body` as what the next ones will be like."""
        if self._tries >= _TRIES:
            return
        self._tries += 1
        found = _TEXT.search(body)
        if found is None:
            return
        start = found.end()
        end = body.find(b'"', start)
        # A backslash may be half of a quote's escape.
        if end >= 0 and b"\\" not in body[start:end]:
            self._before, self._after = body[:start], body[end:]
