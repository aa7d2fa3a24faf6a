"""Limits counted in Redis: one script, one round trip for all that is asked in the same turn of the event loop."""

import asyncio
import hashlib
import logging
import random
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from llmproxy.core.limits import Limit, Pending, Taken
from llmproxy.core.redis_url import RedisUrl
from llmproxy.stores.redis_ahead import TICK_S, Advance, Ahead
from llmproxy.stores.redis_alone import Alone, OnFailure
from llmproxy.stores.redis_batch import Batch, Gift, read_answer
from llmproxy.stores.redis_door import RedisDoor
from llmproxy.stores.redis_keeper import RedisKeeper
from llmproxy.stores.redis_link import Argument, RedisLink
from llmproxy.stores.script import LIMITS

log = logging.getLogger("llmproxy")

_TOGETHER = 64
"""Most questions, and most corrections, in one run of the script: Redis does nothing else meanwhile."""
_LAZY_S = 0.004
"""How long a correction waits for a question to ride along with."""
_SPARE_MS = 10
"""Redis's clock is known to within a round trip."""
_TRIES = 5
"""Links over which the same corrections are sent before they are what breaks them."""
_DIGEST = hashlib.sha1(LIMITS.encode()).hexdigest()  # noqa: S324 (Redis names scripts so)
_BY_DIGEST = ("EVALSHA", _DIGEST)
_BY_TEXT = ("EVAL", LIMITS)


class RedisStore:
    """A `LimitStore`. `name` is this process's, and no other's. `start` it before use, `close` it at the end."""

    def __init__(
        self,
        url: RedisUrl,
        *,
        name: str,
        rng: random.Random,
        namespace: str = "llmproxy",
        timeout_s: float = 0.025,
        on_failure: OnFailure = OnFailure.LOCAL,
        lease_ttl_s: float = 30.0,
    ) -> None:
        self.timeout_s = timeout_s
        self.alone = Alone(on_failure)
        self.counts = self.alone.counts
        """How questions were decided: `redis`, `ahead` (from what it granted before), `local`, `allow`, `deny`."""
        self.links: Counter[str] = Counter()
        """How often the link came `up`, and why it went: `timeout`, `lost`, `refused`, `closed`."""
        self._prefix = f"{{{namespace}}}:"
        self._sequence_key = f"{self._prefix}given:{name}"
        self._lease_ttl_ms = round(lease_ttl_s * 1000)
        self._keeper = RedisKeeper(
            RedisDoor(url),
            prefix=self._prefix,
            name=name,
            fast_s=timeout_s,
            rng=rng,
            on_up=self._up,
            on_beat=self._beaten,
            on_trouble=self._fail,
        )
        self._link: RedisLink | None = None
        self._ahead = Ahead()
        self._ticks: asyncio.TimerHandle | None = None
        self._asking: list[Pending] = []
        self._giving: list[Gift] = []
        self._sent: deque[Batch] = deque()
        self._unconfirmed: deque[Batch] = deque()
        """Corrections that may or may not have arrived over the link before; said again over the next one."""
        self._sequence = 0
        self._flushes: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._suspected = False
        self._renew_at = 0.0

    # -- life ------------------------------------------------------------------------------------------------------

    async def start(self, patience_s: float = 1.0) -> bool:
        """Connect; False when that was not done within `patience_s` (it goes on in the background)."""
        self._loop = asyncio.get_running_loop()
        await self._keeper.start(patience_s)
        return self._link is not None

    async def close(self) -> None:
        """Say what is left to say, for a moment, and end."""
        try:
            await self._keeper.stop()
            # Twice: what is heard before the first one's answer may be more to give back.
            for _ in range(2):
                if self._link is not None:
                    self._giving += self._ahead.close()
                    self._flush()
                    await self._keeper.leave()
        finally:
            self._drop("closed")

    @property
    def connected(self) -> bool:
        return self._link is not None

    @property
    def proxies(self) -> int:
        """How many share this Redis, as last seen."""
        return self._keeper.proxies

    # -- the port --------------------------------------------------------------------------------------------------

    def take(self, limits: Sequence[Limit], amounts: Sequence[int], lease: str, now_ms: int) -> Taken | Pending:
        if self._link is None:
            return self.alone.take(limits, amounts, lease, now_ms)
        if self._ahead.accounts:
            taken = self._ahead.take(limits, amounts, lease, self._redis_ms())
            if taken is not None:
                self.counts["ahead"] += 1
                return taken
        pending = Pending(limits, amounts, lease, now_ms)
        self._asking.append(pending)
        if len(self._asking) == 1:
            self._flush_soon()
        return pending

    def give(self, limits: Sequence[Limit], amounts: Sequence[int], lease: str, taken: Taken, now_ms: int) -> None:
        if taken.uncounted:
            return
        if lease:
            lease = self._ahead.name_of(lease)
            self.alone.release(limits, amounts, lease, taken, now_ms)
        if self._link is None:
            self.alone.owe(limits, amounts, lease, taken.at_ms)
            self.alone.correct(limits, amounts, taken, now_ms)
            return
        if self._ahead.accounts:
            limits, amounts = self._ahead.give(limits, amounts, lease, taken.at_ms, self._keeper.proxies)
            if not limits:
                return
        self._giving.append(Gift(limits, amounts, lease, taken.at_ms))
        self._give_soon()

    def overrides(self) -> Mapping[str, str]:
        return self._keeper.overrides

    @property
    def overrides_version(self) -> int:
        return self._keeper.overrides_version

    async def set_override(self, tenant: str, text: str | None) -> None:
        await self._keeper.set_override(tenant, text)

    # -- asking ----------------------------------------------------------------------------------------------------

    def _redis_ms(self) -> int:
        """The time by Redis's clock, to within a round trip."""
        return int(self._loop.time() * 1000 + self._keeper.skew_ms)

    def _give_soon(self) -> None:
        if self._flushes is None:
            self._flushes = self._loop.call_later(_LAZY_S, self._flush)

    def _flush_soon(self) -> None:
        """Behind everything that is ready to run in this turn of the loop."""
        if self._flushes is not None:
            self._flushes.cancel()
        self._flushes = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what has gathered."""
        if self._flushes is not None:
            self._flushes.cancel()
            self._flushes = None
        link = self._link
        if link is None:
            return
        asking, self._asking = [one for one in self._asking if not one.abandoned], []
        giving, self._giving = self._giving, []
        asked = bool(asking)
        while asking or giving:
            part, giving = giving[:_TOGETHER], giving[_TOGETHER:]
            # All corrections before any question, which is decided knowing what passed during an outage.
            questions = [] if giving else asking[:_TOGETHER]
            asking = asking[len(questions) :]
            if part:
                self._sequence += 1
            batch = Batch(questions, part, self._sequence if part else 0, self._loop.time())
            self._send(link, batch, _BY_DIGEST)
        if asked and self._timer is None:
            self._timer = self._loop.call_later(self.timeout_s, self._look)

    def _send(self, link: RedisLink, batch: Batch, script: Sequence[Argument]) -> None:
        last_moment_ms = round((batch.sent_at + self.timeout_s) * 1000 + self._keeper.skew_ms) + _SPARE_MS
        self._sent.append(batch)
        command = batch.command(script, self._prefix, self._sequence_key, last_moment_ms, self._lease_ttl_ms)
        link.call(command, partial(self._answered, link, batch))

    def _answered(self, link: RedisLink, batch: Batch, reply: Any) -> None:
        if link is not self._link:
            return
        if isinstance(reply, Exception):
            if not str(reply).startswith("NOSCRIPT") or batch.repeated:
                self._fail(str(reply))
                return
            # Flushed, or another server than before. Nothing was done, so corrections are numbered behind the rest.
            self._sent.popleft()
            batch.repeated = True
            if batch.sequence:
                self._sequence += 1
                batch.sequence = self._sequence
            self._send(link, batch, _BY_TEXT)
            return
        self._sent.popleft()
        at_ms: int = reply[0]
        self._keeper.skew_ms = at_ms - self._loop.time() * 1000
        for pending, answer in zip(batch.asking, reply[1:], strict=True):
            taken = read_answer(at_ms, answer)
            if isinstance(pending, Advance):
                if not self._ahead.answered(pending, taken):
                    self._giving.append(Gift(pending.limits, (-pending.amounts[0],), "", at_ms))
                    self._give_soon()
            elif taken is None:
                self._decide((pending,))
            elif not pending.abandoned:
                self.counts["redis"] += 1
                self.alone.granted(pending.limits, pending.amounts, pending.lease, taken, pending.now_ms)
                self._ahead.asked(pending.limits, pending.amounts, taken)
                pending.set(taken)
            elif taken.ok:
                back = [-amount for amount in pending.amounts]
                self.give(pending.limits, back, pending.lease, taken, pending.now_ms)
        if self._ticks is None and self._ahead.busy:
            self._ticks = self._loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        """Make what was taken ahead fit what is used."""
        self._ticks = None
        advances, gifts = self._ahead.tick(self._keeper.proxies, self._redis_ms())
        if advances or gifts:
            self._asking += advances
            self._giving += gifts
            self._flush()
        if self._ahead.busy:
            self._ticks = self._loop.call_later(TICK_S, self._tick)

    def _decide(self, asking: Sequence[Pending]) -> None:
        """Answer without Redis."""
        for pending in asking:
            if isinstance(pending, Advance):
                continue
            if pending.abandoned:
                self.alone.unlend(pending.limits, pending.lease)
                continue
            taken = self.alone.take(pending.limits, pending.amounts, pending.lease, pending.now_ms)
            if not taken.ok or taken.uncounted:
                # Redis may have lent it, and not been heard.
                self.alone.unlend(pending.limits, pending.lease)
            pending.set(taken)

    # -- the link --------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Is an answer overdue? Looked at twice, with time for the event loop to read in between: it may be this
        process that was slow."""
        self._timer = None
        oldest = next((batch for batch in self._sent if batch.asking), None)
        if oldest is None:
            self._suspected = False
            return
        left_s = oldest.sent_at + self.timeout_s - self._loop.time()
        if left_s > 0.0005:
            self._suspected = False
        elif self._suspected:
            self._suspected = False
            self._fail("timeout")
            return
        else:
            self._suspected, left_s = True, 0.001
        self._timer = self._loop.call_later(left_s, self._look)

    def _lost(self, link: RedisLink) -> None:
        if link is self._link:
            self._fail("lost")

    def _fail(self, why: str) -> None:
        """The link is no good: decide what waits; the keeper connects again."""
        log.warning("limits: Redis is out of reach (%s); on_store_failure: %s", why, self.alone.on_failure.value)
        is_word = why in ("timeout", "lost")
        self._keeper.went("" if is_word else why)
        self._drop(why if is_word else "refused")

    def _drop(self, reason: str) -> None:
        link, self._link = self._link, None
        if link is not None:
            self.links[reason] += 1
            link.abort()
        for handle in (self._timer, self._flushes, self._ticks):
            if handle is not None:
                handle.cancel()
        self._timer = self._flushes = self._ticks = None
        sent, self._sent = self._sent, deque()
        asking, self._asking = self._asking, []
        giving, self._giving = self._giving, []
        for batch in sent:
            if batch.giving and batch.tries < _TRIES:
                self._unconfirmed.append(Batch((), batch.giving, batch.sequence, 0.0, batch.tries + 1))
        self.alone.take_over(self._ahead, self._redis_ms())
        for gift in giving:
            self.alone.owe(gift.limits, gift.amounts, gift.lease, gift.taken_at_ms)
        for batch in sent:
            self._decide(batch.asking)
        self._decide(asking)

    def _up(self, link: RedisLink) -> None:
        """Say what Redis missed, in order, and use it from now on."""
        if link.lost:
            self._keeper.went()
            return
        self._link = link
        link.on_lost(self._lost)
        self.links["up"] += 1
        unconfirmed, self._unconfirmed = self._unconfirmed, deque()
        for batch in unconfirmed:
            self._send(link, batch, _BY_DIGEST)
        self.alone.store.set_share(self._keeper.proxies)
        self._giving += self.alone.pay()
        self._renew()
        log.info("limits: connected to Redis; proxies that share it: %d", self._keeper.proxies)

    def _beaten(self) -> None:
        self.alone.store.set_share(self._keeper.proxies)
        if self._loop.time() >= self._renew_at:
            self._renew()

    def _renew(self) -> None:
        """All leases that are held are held for longer; also after Redis lost them."""
        self._renew_at = self._loop.time() + self._lease_ttl_ms / 3000
        self._giving += self.alone.renewals()
        self._giving += self._ahead.renewals()
        self._flush_soon()
