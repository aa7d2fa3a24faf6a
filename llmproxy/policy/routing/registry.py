"""Names -> routing policies: one line each, and third parties' through the entry point group `llmproxy.routing`."""

import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

from llmproxy.core.ports import RoutingPolicy
from llmproxy.core.registry import Registry
from llmproxy.policy.routing.expected_cost import ExpectedCost
from llmproxy.policy.routing.gpu_utilization import GpuUtilization
from llmproxy.policy.routing.ip_hash import IpHash
from llmproxy.policy.routing.kv_headroom import KvHeadroom
from llmproxy.policy.routing.least_connections import LeastConnections
from llmproxy.policy.routing.options import parse_options
from llmproxy.policy.routing.power_of_two import PowerOfTwo
from llmproxy.policy.routing.prefix_affinity import PrefixAffinity
from llmproxy.policy.routing.random_choice import RandomChoice
from llmproxy.policy.routing.round_robin import RoundRobin
from llmproxy.policy.routing.scored import Scored
from llmproxy.policy.routing.session_affinity import SessionAffinity
from llmproxy.policy.routing.weighted import Weighted

ENTRY_POINTS: Final = "llmproxy.routing"


class PolicyType(Protocol):
    """What the registry holds: a policy class with its options' type."""

    @property
    def options_type(self) -> type[Any]: ...

    def __call__(self, options: Any, rng: random.Random) -> RoutingPolicy: ...


POLICIES: Final[Mapping[str, PolicyType]] = MappingProxyType(
    {
        "expected_cost": ExpectedCost,
        "gpu_utilization": GpuUtilization,
        "ip_hash": IpHash,
        "kv_headroom": KvHeadroom,
        "least_connections": LeastConnections,
        "power_of_two": PowerOfTwo,
        "prefix_affinity": PrefixAffinity,
        "random": RandomChoice,
        "round_robin": RoundRobin,
        "scored": Scored,
        "session_affinity": SessionAffinity,
        "weighted": Weighted,
    }
)


_REGISTRY: Final[Registry[PolicyType]] = Registry("routing policy", ENTRY_POINTS, POLICIES)


def names() -> tuple[str, ...]:
    """Every policy that can be named, third parties' among them."""
    return _REGISTRY.names()


def build(name: str, options: Mapping[str, object], rng: random.Random) -> RoutingPolicy:
    """The policy `name` with `options`. Raises `OptionError`."""
    policy = find(name)
    return policy(parse_options(policy.options_type, options, name), rng)


def find(name: str) -> PolicyType:
    """The class behind `name`. Other packages are asked only for a name that is not ours. Raises `OptionError`."""
    return _REGISTRY.find(name)
