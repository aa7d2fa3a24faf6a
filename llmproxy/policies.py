"""Checks the configuration's policies against the registry: config itself may not know any policy."""

import random

from llmproxy.config.model import PolicyConfig
from llmproxy.policy.routing.options import OptionError
from llmproxy.policy.routing.registry import build


def check_policy(policy: PolicyConfig) -> list[tuple[str, str]]:
    """What is wrong with a pool's `policy`, as pairs of an option's name ("" for the policy) and a message; empty when
    it can be built."""
    try:
        build(policy.name, policy.options, random.Random(0))  # noqa: S311
    except OptionError as error:
        return [(error.option or "", str(error))]
    return []
