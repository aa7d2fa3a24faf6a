"""Names -> scaling policies: one line each, and third parties' through the entry point group `llmproxy.scaling`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

from llmproxy.core.registry import Registry
from llmproxy.policy.scaling.base import ScalingPolicy
from llmproxy.policy.scaling.demand import DemandLaw
from llmproxy.policy.scaling.forecast import Forecast
from llmproxy.policy.scaling.options import parse_options
from llmproxy.policy.scaling.rules import Hold, Rules
from llmproxy.policy.scaling.schedule import Schedule
from llmproxy.policy.scaling.steps import Steps
from llmproxy.policy.scaling.target import Target

ENTRY_POINTS: Final = "llmproxy.scaling"


class PolicyType(Protocol):
    """What the registry holds: a policy class with its options' type."""

    @property
    def options_type(self) -> type[Any]: ...

    def __call__(self, options: Any) -> ScalingPolicy: ...


POLICIES: Final[Mapping[str, PolicyType]] = MappingProxyType(
    {
        "demand": DemandLaw,
        "forecast": Forecast,
        "hold": Hold,
        "rules": Rules,
        "schedule": Schedule,
        "steps": Steps,
        "target": Target,
    }
)


_REGISTRY: Final[Registry[PolicyType]] = Registry("scaling policy", ENTRY_POINTS, POLICIES)


def names() -> tuple[str, ...]:
    """Every policy that can be named, third parties' among them."""
    return _REGISTRY.names()


def build(name: str, options: object) -> ScalingPolicy:
    """The policy `name` with `options`, plain values. Raises `OptionError`."""
    policy = find(name)
    return policy(parse_options(policy.options_type, options, name))


def find(name: str) -> PolicyType:
    """The class behind `name`. Other packages are asked only for a name that is not ours. Raises `OptionError`."""
    return _REGISTRY.find(name)
