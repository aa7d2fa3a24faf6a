"""A client's address decides, and keeps its backend while that one is there."""

import random
from collections.abc import Sequence
from typing import ClassVar

from llmproxy.core.backend import Backend
from llmproxy.core.request import Request
from llmproxy.policy.routing.base import Unlearning
from llmproxy.policy.routing.options import NoOptions
from llmproxy.policy.routing.rendezvous import Rendezvous, digest


class IpHash(Unlearning):
    """Weighted rendezvous hashing of `client_ip`. Load plays no part: many clients behind one address stay together."""

    __slots__ = ("_rendezvous",)
    options_type: ClassVar = NoOptions

    def __init__(self, options: NoOptions, rng: random.Random) -> None:
        self._rendezvous = Rendezvous()

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        return self._rendezvous.first(digest(request.client_ip), candidates)

    def forget(self, backend: Backend) -> None:
        self._rendezvous.forget(backend)
