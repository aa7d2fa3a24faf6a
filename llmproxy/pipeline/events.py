"""What single pieces of an engine's answer mean, as engines really say it (measured on vLLM 0.32).

An engine that shuts down, sleeps or is paused gives its requests up, and says so differently in each dialect: a
`finish_reason` of "abort"; in Anthropic's dialect no `stop_reason` at all. A request that was still waiting in its
queue gets an answer that looks complete and says nothing: a bare `[DONE]` with no `finish_reason` before it, a message
that stops with "end_turn" after 0 tokens, a "completed" response of 0 tokens. What cannot be told apart from a whole
answer: a response of `/v1/responses` that was given up after its first token; vLLM calls that completed as well.

An engine that fails, is full, or will not do what a client asks may notice only after it has sent its 200. The
completions routes then send an error with a `code`. `/v1/messages` makes its stream out of a chat's and cannot read an
error there: it complains of that in an error of its own, in which the end of the first one can still be seen. A stream
of `/v1/responses` is cut, whatever it was, and so can be told from a crash by nobody.
"""

import re
from typing import Final

_ABORT: Final = re.compile(rb'"finish_reason"\s*:\s*"abort"')
_STOPS_FOR_NOTHING: Final = re.compile(rb'"type"\s*:\s*"message_delta".*"stop_reason"\s*:\s*null', re.DOTALL)
_ERROR: Final = re.compile(rb'data:\s*\{\s*"(?:error"|type"\s*:\s*"error")')
_CODE_4XX: Final = re.compile(rb'"code"\s*:\s*"?4[0-9][0-9]\b')
_WRAPPED: Final = re.compile(rb"validation errors? for ChatCompletionStreamResponse.*'code': ([0-9]{3})\}\}", re.DOTALL)
_FULL: Final = b"try again later or on a different instance"
_NAMED_OPENER: Final = re.compile(
    rb"event: ?(?:message_start|content_block_start|ping|"
    rb"response\.(?:created|queued|in_progress|output_item\.added|content_part\.added))\r?\n"
)
_ROLE: Final = re.compile(rb'"delta"\s*:\s*\{\s*"role"\s*:\s*"assistant"\s*(?:,\s*"content"\s*:\s*(?:""|null)\s*)?\}')
_FINISHED: Final = re.compile(rb'"finish_reason"\s*:\s*"')
_DONE: Final = re.compile(rb"data: ?\[DONE\]")
_ENDS: Final = re.compile(rb'"type"\s*:\s*"(?:message_delta|response\.completed)"')
_NO_TOKENS: Final = re.compile(rb'"output_tokens"\s*:\s*0\b')


def is_opener(event: bytes) -> bool:
    """Whether an event only opens an answer: no token is in it."""
    if b'"role"' in event and _ROLE.search(event) is not None:
        return _FINISHED.search(event) is None
    return _NAMED_OPENER.match(event) is not None


def ends_unsaid(event: bytes) -> bool:
    """Whether an event ends an answer in which nothing but openers came before: it was given up while it waited."""
    return _DONE.match(event) is not None or (
        b'"output_tokens"' in event and _ENDS.search(event) is not None and _NO_TOKENS.search(event) is not None
    )


def gives_up(event: bytes) -> bool:
    """Whether the engine says that it gives the answer up. An error that is the client's own (4xx) is an answer."""
    if b"abort" in event and _ABORT.search(event):
        return True
    if b"message_delta" in event and _STOPS_FOR_NOTHING.search(event):
        return True
    return (
        b"error" in event
        and (_ERROR.search(event) is not None or event.startswith(b"event: error"))
        and not _CODE_4XX.search(event)
        and not _wrapped_code(event).startswith(b"4")
    )


def is_cut_short(body: bytes) -> bool:
    """Whether a whole answer of the completions routes was given up."""
    return len(body.partition(b'"abort"')[1]) > 0 and _ABORT.search(body) is not None


def says_full(body: bytes) -> bool:
    """Whether an error has the words of a full engine: its queue is at `--max-num-queued-reqs`. A 503 without
    Retry-After, and in a stream that was let in too soon an error in place of the first event."""
    return _FULL in body or _wrapped_code(body) == b"503"


def _wrapped_code(event: bytes) -> bytes:
    """The code of a chat's error inside an error of `/v1/messages`; empty when there is none."""
    match = _WRAPPED.search(event) if b"ChatCompletionStreamResponse" in event else None
    return b"" if match is None else match[1]


def split_events(data: bytes) -> list[bytes]:
    """Events with their blank lines. Both line endings in use are understood."""
    if b"\r\n\r\n" in data:
        return [event for event in re.split(rb"(?<=\r\n\r\n)|(?<=\n\n)", data) if event]
    events = data.split(b"\n\n")
    last = events.pop()
    split = [event + b"\n\n" for event in events]
    if last:
        split.append(last)
    return split
