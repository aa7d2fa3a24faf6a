"""The life of one request on the engine: from submitting its choices to the last byte of its answer."""

import asyncio
from collections.abc import Sequence

import msgspec

from llmproxy.emulator.choice import Choice
from llmproxy.emulator.dialects.answer import Answer
from llmproxy.emulator.errors import ENGINE_DEAD, ApiError, error_body
from llmproxy.emulator.faults import Fault, Plan
from llmproxy.emulator.reply import Reply
from llmproxy.emulator.site import Site
from llmproxy.sim import Phase

EVENT_STREAM = "text/event-stream; charset=utf-8"
_KEEP_ALIVE = b": keep-alive\n\n"


class Generation:
    """`reply` is None for work in the background. However it ends, nothing of it stays on the engine."""

    def __init__(
        self, site: Site, reply: Reply | None, answer: Answer, choices: Sequence[Choice], plan: Plan, *, stream: bool
    ) -> None:
        self.answer = answer
        self._site = site
        self._reply = reply
        self._choices = choices
        self._plan = plan
        self._stream = stream
        self._opened = False
        self._over = False
        self._left = len(choices)
        self._tokens = 0
        self._pieces: list[bytes] = []
        self._comment_timer: asyncio.TimerHandle | None = None

    @property
    def over(self) -> bool:
        return self._over

    def start(self) -> None:
        """Send the head of a stream, then queue the choices: like vLLM, which answers 200 before it prefills."""
        reply = self._reply
        if reply is not None:
            reply.on_gone = self.cancel
            if self._stream:
                reply.start(EVENT_STREAM)
                if self._plan.comments_s is not None:
                    self._comment()
        self._site.enter(self)
        for choice in self._choices:
            choice.generation = self
        for choice in self._choices:
            self._site.driver.submit(choice)

    def produced(self, choice: Choice, now: float) -> None:
        """The engine made a token (or, for a pooled model, computed the prompt)."""
        if self._over:
            return
        self._measure(choice, now)
        end = self._plan.end
        if end is not None and end.value == 0:
            self._break(end)
            return
        self._tokens += 1
        broken = end is not None and self._tokens >= end.value
        done = choice.phase is Phase.DONE
        if done:
            self._left -= 1
            if not broken:
                choice.finish_reason = choice.end_reason
                self._site.stats.finished[choice.finish_reason] += 1
        if self._stream:
            self._open()
            self._write(self.answer.delta(choice, choice.word, choice.finish_reason))
        if end is not None and broken:
            self._flush()
            self._break(end)
        elif self._left == 0:
            self._complete()
        elif self._stream:
            self._flush()

    def cancel(self) -> None:
        """The client left, or cancelled its work in the background."""
        if not self._over:
            self._leave_engine("abort")

    def abort(self) -> None:
        """The engine gives up: what is unfinished ends with the reason "abort" and as many tokens as it has."""
        if self._over:
            return
        unfinished = [choice for choice in self._choices if choice.finish_reason is None]
        self._leave_engine("abort")
        if self._stream:
            self._open()
            for choice in unfinished:
                self._write(self.answer.delta(choice, "", "abort"))
        self._send_end()

    def _complete(self) -> None:
        self._over = True
        self._forget()
        self._send_end()

    def _send_end(self) -> None:
        if self._reply is None:
            return
        if self._stream:
            self._write(self.answer.closing())
            self._flush()
            self._reply.end()
        else:
            self._reply.json(200, self.answer.whole(), self._load_header())

    def _load_header(self) -> list[tuple[str, str]]:
        assert self._reply is not None
        wanted = (self._reply.request.header("endpoint-load-metrics-format") or "").lower()
        engine = self._site.engine
        figures = {"kv_cache_usage_perc": engine.kv_usage, "num_requests_waiting": float(engine.waiting)}
        if wanted == "json":
            return [("endpoint-load-metrics", f"JSON {msgspec.json.encode({'named_metrics': figures}).decode()}")]
        if wanted == "text":
            text = ", ".join(f"named_metrics.{name}={value}" for name, value in figures.items())
            return [("endpoint-load-metrics", f"TEXT {text}")]
        return []

    def _break(self, end: Fault) -> None:
        """The fault decides how the answer ends."""
        reply = self._reply
        if reply is not None:
            reply.faulted = True
        if end.kind == "abort_after":
            self.abort()
            return
        self._leave_engine("error")
        if reply is None:
            return
        if end.kind == "die_after":
            reply.reset()
        elif end.kind == "error_event_after":
            self._fail(reply)
        elif end.kind == "truncate_after":
            self._truncate(reply)

    def _fail(self, reply: Reply) -> None:
        if self._stream:
            reply.write(self.answer.failure(ENGINE_DEAD))
            reply.end()
        else:
            reply.json(500, error_body(ApiError(500, ENGINE_DEAD), reply.request.path))

    def _truncate(self, reply: Reply) -> None:
        if self._stream:
            reply.end()
        else:
            body = msgspec.json.encode(self.answer.whole())
            reply.cut(200, "application/json", body, len(body) // 2)

    def _open(self) -> None:
        """What precedes the first token; it goes out together with it."""
        if not self._opened:
            self._opened = True
            self._stop_comments()
            self._write(self.answer.opening())

    def _write(self, pieces: list[bytes]) -> None:
        self._pieces += pieces

    def _flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        if self._reply is not None:
            self._reply.write(pieces)

    def _leave_engine(self, reason: str) -> None:
        self._over = True
        self._forget()
        for choice in self._choices:
            if choice.finish_reason is None:
                choice.finish_reason = reason
                self._site.stats.finished[reason] += 1
                self._site.driver.abort(choice)

    def _forget(self) -> None:
        self._stop_comments()
        self._site.leave(self)

    def _measure(self, choice: Choice, now: float) -> None:
        stats = self._site.stats
        if choice.generated == 1:
            stats.ttft_s.observe(max(now - choice.submitted_at, 0.0))
        elif choice.generated:
            stats.itl_s.observe(now - choice.last_token_at)
        choice.last_token_at = now
        if choice.phase is Phase.DONE:
            stats.e2e_s.observe(max(now - choice.submitted_at, 0.0))
            stats.queue_s.observe(max((choice.admitted_at or now) - choice.submitted_at, 0.0))

    def _comment(self) -> None:
        assert self._plan.comments_s is not None
        if self._reply is not None:
            self._reply.write([_KEEP_ALIVE])
        self._comment_timer = asyncio.get_running_loop().call_later(self._plan.comments_s, self._comment)

    def _stop_comments(self) -> None:
        timer, self._comment_timer = self._comment_timer, None
        if timer is not None:
            timer.cancel()
