"""One answer as a client saw it, with the time at which each piece came."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any


class Answer:
    """Filled while it arrives; all times are monotonic seconds. `cut`: the connection ended before the answer did."""

    __slots__ = ("begun", "cut", "ended_at", "first_at", "headers", "over", "pieces", "sent_at", "status")

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.pieces: list[tuple[float, bytes]] = []
        self.cut = False
        self.sent_at = time.monotonic()
        self.first_at = 0.0
        """When the first byte of the body came; 0 while none has."""
        self.ended_at = 0.0
        self.begun = asyncio.Event()
        """Set with the first byte of the body, or with the end if there is none."""
        self.over = asyncio.Event()

    # -- while it arrives ------------------------------------------------------------------------------------------

    def add(self, piece: bytes, now: float) -> None:
        if not self.pieces:
            self.first_at = now
            self.begun.set()
        self.pieces.append((now, piece))

    def end(self, now: float, *, cut: bool) -> None:
        if not self.over.is_set():
            self.cut, self.ended_at = cut, now
            self.begun.set()
            self.over.set()

    # -- afterwards ------------------------------------------------------------------------------------------------

    @property
    def backend(self) -> str:
        """Who answered; empty when no backend did."""
        return self.headers.get("x-llmproxy-backend", "")

    @property
    def body(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)

    def events(self) -> Iterator[tuple[float, Any]]:
        """A stream's events and when each was complete, decoded; `[DONE]` stays a string."""
        rest = b""
        for at, piece in self.pieces:
            *blocks, rest = (rest + piece).split(b"\n\n")
            for block in blocks:
                if block.startswith(b"data:"):
                    data = block[5:].strip()
                    yield at, "[DONE]" if data == b"[DONE]" else json.loads(data)

    def token_times(self) -> list[float]:
        """When each token of a chat stream came (the emulator sends one an event)."""
        return [at for at, event in self.events() if _has_content(event)]

    def flaw(self, tokens: int, *, stream: bool) -> str | None:
        """What is wrong with the answer to a chat that asked for so many tokens; None when nothing is."""
        if self.status != 200 or self.cut:
            how = f", cut after {self.ended_at - self.sent_at:.3f} s" if self.cut else ""
            return f"status {self.status}{how}: {self.body[-200:]!r}"
        try:
            found = len(self.token_times()) if stream else json.loads(self.body)["usage"]["completion_tokens"]
        except (ValueError, LookupError, TypeError):
            return f"not a chat's answer: {self.body[-200:]!r}"
        if stream and not self.body.endswith(b"data: [DONE]\n\n"):
            return f"an end without [DONE]: {self.body[-200:]!r}"
        return None if found == tokens else f"{found} tokens, not {tokens}"

    def ends_with_an_error_event(self) -> bool:
        """Whether a broken stream says so: a whole answer whose last event is an error, and no `[DONE]`."""
        events = [event for _, event in self.events()]
        return self.status == 200 and not self.cut and "[DONE]" not in events and bool(events) and "error" in events[-1]


def _has_content(event: Any) -> bool:
    choices = event.get("choices") if isinstance(event, dict) else None
    return bool(choices and choices[0].get("delta", {}).get("content"))
