"""Sends replicas of the warm pool to sleep (vLLM's sleep mode), and remembers when engines will not."""

import logging

from llmproxy.config.model import PoolConfig
from llmproxy.control.scaling.backoff import Backoff
from llmproxy.control.scaling.bring_up import BringUp
from llmproxy.control.scaling.fleet import Replica, Stage
from llmproxy.control.scaling.terms import Terms
from llmproxy.core.backend import BackendSpec
from llmproxy.core.clock import Clock
from llmproxy.core.pool import Pool

_log = logging.getLogger("llmproxy.control.scaling")


class Sleep:
    """Of one pool's engines."""

    def __init__(self, pool: Pool[PoolConfig], bring_up: BringUp, backoff: Backoff, clock: Clock) -> None:
        self.refused_under: Terms | None = None
        """The terms under which an engine refused to sleep: until there are others, none is asked again."""
        self._pool = pool
        self._bring_up = bring_up
        self._backoff = backoff
        self._clock = clock

    async def begin(self, replica: Replica, spec: BackendSpec, terms: Terms) -> None:
        """Where it does not come about the replica drains, to be stopped."""
        # Before it is asked: if it is needed again before it has answered, it is to be woken all the same.
        replica.asleep = True
        status = await self._bring_up.put_to_sleep(spec, self._pool.settings)
        if status == 200:
            return
        now = self._clock()
        if status is None:
            # It may be another time; until then starting one after the other for that would cost a cold start each.
            self._backoff.failed(now, replica.tier)
            _log.warning("pool %s: replica %s did not fall asleep: it is stopped", self._pool.name, replica.id)
        else:
            replica.asleep = False
            self.refused_under = terms
            _log.error(
                "pool %s: replica %s refuses to sleep (status %d): it is stopped, and there is no warm pool until the "
                "next reload. vLLM needs --enable-sleep-mode and VLLM_SERVER_DEV_MODE=1",
                self._pool.name,
                replica.id,
                status,
            )
        replica.recycle = "it cannot sleep"
        replica.move(Stage.DRAINING, now)
