"""Which replicas are members of the pool, and as what backends: those that serve or drain."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from llmproxy.config.backend import BackendConfig
from llmproxy.config.model import PoolConfig
from llmproxy.control.scaling.fleet import Fleet, Replica, Stage
from llmproxy.control.scaling.terms import TierTerms
from llmproxy.core.backend import BackendSpec
from llmproxy.core.pool import Pool


class Membership:
    """`announce(specs)` makes them the pool's members from this source; `terms_of(tier)` is what a tier's replicas are
    to the pool."""

    def __init__(
        self,
        pool: Pool[PoolConfig],
        fleet: Fleet,
        announce: Callable[[Sequence[BackendSpec]], None],
        terms_of: Callable[[str], TierTerms],
    ) -> None:
        self._pool = pool
        self._fleet = fleet
        self._announce = announce
        self._terms_of = terms_of

    def publish(self) -> None:
        """Tell who they are, and note each one's place in the pool."""
        members = self._fleet.at(Stage.SERVING, Stage.DRAINING)
        for replica in self._fleet.replicas.values():
            if replica not in members:
                replica.backend = None
        self._announce([self.spec(replica) for replica in members])
        live = {backend.id: backend for backend in self._pool.backends}
        for replica in members:
            replica.backend = live.get(replica.id)

    def spec(self, replica: Replica) -> BackendSpec:
        """As whom it is asked, whether or not it is a member yet."""
        terms = self._terms_of(replica.tier)
        config = BackendConfig(
            url=replica.url,
            id=replica.id,
            weight=terms.weight,
            max_concurrency=terms.max_concurrency,
            price_per_hour=terms.price_per_hour,
            spot=terms.spot,
        )
        spec = config.spec(self._pool.name)
        return replace(spec, tier=replica.tier, prompt_tokens_max=terms.prompt_tokens_max)
