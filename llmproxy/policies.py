"""Checks the configuration's policies against the registry: config itself may not know any policy."""

import random

from llmproxy.config.model import PolicyConfig
from llmproxy.config.scaling import ScalingPolicyConfig
from llmproxy.policy.routing.options import OptionError
from llmproxy.policy.routing.registry import build
from llmproxy.policy.scaling.options import OptionError as ScalingOptionError
from llmproxy.policy.scaling.registry import build as build_scaling


def check_policy(policy: PolicyConfig | ScalingPolicyConfig) -> list[tuple[str, str]]:
    """What is wrong with a pool's `policy`, or one of its scaling policies, as pairs of an option's name ("" for the
    policy) and a message; empty when it can be built."""
    if isinstance(policy, ScalingPolicyConfig):
        return _check_scaling(policy)
    try:
        build(policy.name, policy.options, random.Random(0))  # noqa: S311
    except OptionError as error:
        return [(error.option or "", str(error))]
    return []


def _check_scaling(policy: ScalingPolicyConfig) -> list[tuple[str, str]]:
    try:
        build_scaling(policy.name, policy.options)
    except ScalingOptionError as error:
        return [(error.option or "", str(error))]
    return []
