"""Names -> scaling policies: one line each, and third parties' through the entry point group `llmproxy.scaling`."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, Final, Protocol

from llmproxy.policy.scaling.base import ScalingPolicy
from llmproxy.policy.scaling.demand import DemandLaw
from llmproxy.policy.scaling.forecast import Forecast
from llmproxy.policy.scaling.options import OptionError, parse_options, suggestion
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


def names() -> tuple[str, ...]:
    """Every policy that can be named, third parties' among them."""
    return tuple(sorted({*POLICIES, *(point.name for point in entry_points(group=ENTRY_POINTS))}))


def build(name: str, options: object) -> ScalingPolicy:
    """The policy `name` with `options`, plain values. Raises `OptionError`."""
    policy = find(name)
    return policy(parse_options(policy.options_type, options, name))


def find(name: str) -> PolicyType:
    """The class behind `name`. Other packages are asked only for a name that is not ours. Raises `OptionError`."""
    policy = POLICIES.get(name)
    if policy is not None:
        return policy
    for point in entry_points(group=ENTRY_POINTS, name=name):
        try:
            loaded: PolicyType = point.load()
        except Exception as error:
            raise OptionError(f"scaling policy {name!r} ({point.value}) could not be loaded: {error}") from error
        if not callable(loaded) or not isinstance(getattr(loaded, "options_type", None), type):
            raise OptionError(f"scaling policy {name!r} ({point.value}) is not a policy class with an options_type")
        return loaded
    raise OptionError(f"there is no scaling policy {name!r}{suggestion(name, names())}")
