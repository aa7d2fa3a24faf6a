"""Where prefill and decode on different backends would come in: a shape, with nothing behind it yet.

Where the two are split (vLLM's and SGLang's disaggregated serving, NVIDIA Dynamo) one backend computes a prompt and
hands its KV blocks to another, which generates. For routing that is one decision about two backends: for the first
counts where the prompt's prefix is cached and least waits, for the second room in the KV cache and few requests in
flight, and for both the way between them.

What stays as it is: `RoutingPolicy`, whose `observe` speaks of one backend at a time. A pair is two leases and two
lives: SENT and FINISHED (its one token has come) at the prefill backend, then SENT, FIRST_TOKEN and FINISHED at the
decode backend, so the books of both stay true. What would be new, and where:

* `BackendSpec.role` (prefill, decode, or both), from `role:` in the configuration or from discovery;
* where a pool has both roles, the pipeline asks a policy that is a `PairPolicy` for a pair, sends the prompt to the
  first with `max_tokens: 1` and the engine's transfer parameters, and the request to the second with what came back;
* a failed first half is retried as a whole, a failed second half with a pair that keeps the first, while it is there.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from llmproxy.core.backend import Backend
from llmproxy.core.ports import RoutingPolicy
from llmproxy.core.request import Request


class Pair(NamedTuple):
    """Both may be the same backend, where one does it all: a short prompt is not worth the transfer."""

    prefill: Backend
    decode: Backend


class PairPolicy(RoutingPolicy, Protocol):
    """A routing policy that can also choose two."""

    def pick_pair(
        self, prefill: Sequence[Backend], decode: Sequence[Backend], request: Request, now: float
    ) -> Pair: ...
