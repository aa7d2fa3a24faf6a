"""A modelled engine behind the interface of `EngineClient`, in virtual time: exact, and as fast as it computes."""

import asyncio
import itertools

from llmproxy.calibrate.engine import Heard
from llmproxy.core.backend import Gauges
from llmproxy.sim.engine import Engine
from llmproxy.sim.profile import Profile
from llmproxy.sim.sequence import Phase, Sequence


class _Asked(Sequence):
    __slots__ = ("ended", "heard")

    def __init__(self, prompt_tokens: int, output_tokens: int, blocks: tuple[int, ...], sent_at: float) -> None:
        super().__init__(prompt_tokens, output_tokens, blocks=blocks)
        self.heard = Heard(sent_at, prompt_tokens=prompt_tokens)
        self.ended: asyncio.Future[Heard] = asyncio.get_running_loop().create_future()


class VirtualEngine:
    """A word is `tokens_per_word` tokens. `caches` False: no prompt is ever found again. `pieces`: a stream comes in so
    many pieces at most."""

    def __init__(
        self, profile: Profile, *, tokens_per_word: int = 2, caches: bool = True, in_one_piece: bool = False
    ) -> None:
        self.url = "http://engine.test"
        self.now = 0.0
        self._engine: Engine[_Asked] = Engine(profile.engine_options())
        self._block = profile.block_size
        self._tokens_per_word = tokens_per_word
        self._caches = caches
        self._in_one_piece = in_one_piece
        self._numbers = itertools.count()
        self._runner: asyncio.Task[None] | None = None

    async def gauges(self) -> Gauges:
        return Gauges(self.now, running=float(self._engine.running), waiting=float(self._engine.waiting))

    async def ask(self, model: str, prompt: str, max_tokens: int) -> Heard:
        words = prompt.split()
        tokens = len(words) * self._tokens_per_word
        salt = 0 if self._caches else next(self._numbers)
        per_block = self._block // self._tokens_per_word
        blocks = tuple(hash((salt, *words[: (n + 1) * per_block])) for n in range(tokens // self._block))
        asked = _Asked(tokens, max_tokens, blocks, self.now)
        self._engine.submit(asked, self.now)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.ensure_future(self._run())
        return await asked.ended

    async def _run(self) -> None:
        """From step to step, until nothing is left; whoever asks at a moment is let in before it is over."""
        while True:
            for _ in range(5):
                await asyncio.sleep(0)
            due = self._engine.due
            if due is None:
                return
            self.now = due
            for asked in self._engine.advance(due):
                asked.heard.tokens_at.append(due)
                if asked.phase is Phase.DONE:
                    self._end(asked)

    def _end(self, asked: _Asked) -> None:
        heard = asked.heard
        if self._in_one_piece:
            heard.tokens_at = [self.now] * len(heard.tokens_at)
        heard.pieces = len(set(heard.tokens_at))
        heard.ended_at = self.now
        asked.ended.set_result(heard)
