"""The routing policies that a replay compares, by name: a registered one, a third party's from its entry point, or any
class as `package.module:Class`."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import cast

from llmproxy.core.ports import RoutingPolicy
from llmproxy.policy.routing.options import OptionError, parse_options
from llmproxy.policy.routing.registry import PolicyType, find


@dataclass(frozen=True, slots=True)
class Contender:
    """A policy's name, which is also its label, and its options."""

    name: str
    options: Mapping[str, object] = field(default_factory=dict)

    def build(self, rng: random.Random) -> RoutingPolicy:
        """A policy of its own. Raises `OptionError`."""
        policy = _imported(self.name) if ":" in self.name else find(self.name)
        return policy(parse_options(policy.options_type, self.options, self.name), rng)


def _imported(name: str) -> PolicyType:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        raise OptionError(f"routing policy {name!r}: there is no module {error.name!r}") from None
    except Exception as error:
        raise OptionError(f"routing policy {name!r}: importing {module} failed: {error}") from error
    if found is None:
        raise OptionError(f"routing policy {name!r}: {module} has no {attribute!r}")
    if not callable(found) or not isinstance(getattr(found, "options_type", None), type):
        raise OptionError(f"routing policy {name!r} is not a policy class with an options_type")
    return cast("PolicyType", found)
