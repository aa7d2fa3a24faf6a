"""`gpu` of a backend, and a pool's `signals` and `progress`."""

import pytest
from pydantic import ValidationError

from llmproxy.config.backend import BackendConfig
from llmproxy.config.model import PoolConfig
from llmproxy.core.backend import GpuSpec


def gpu(**settings):
    return BackendConfig.model_validate({"url": "http://a", "gpu": settings}).spec("pool").gpu


@pytest.mark.parametrize(
    ("settings", "spec"),
    [
        ({"device": 0}, GpuSpec(device=0)),
        ({"uuid": "GPU-8f6f2a0e-5c3a"}, GpuSpec(uuid="GPU-8f6f2a0e-5c3a")),
        ({"uuid": "MIG-8f6f2a0e-5c3a"}, GpuSpec(uuid="MIG-8f6f2a0e-5c3a")),
        ({"device": 3, "agent": "http://node:9401/"}, GpuSpec(device=3, agent="http://node:9401")),
        ({"device": 3, "dcgm": "http://node:9400/metrics"}, GpuSpec(device=3, dcgm="http://node:9400/metrics")),
    ],
)
def test_which_gpu(settings, spec):
    assert gpu(**settings) == spec


def test_none_is_none():
    assert BackendConfig.model_validate("http://a").spec("pool").gpu is None


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({}, "say which GPU"),
        ({"device": 0, "uuid": "GPU-0"}, "say which GPU"),
        ({"agent": "http://node:9401"}, "say which GPU"),
        ({"device": -1}, "greater than or equal to 0"),
        ({"uuid": "0"}, "pattern"),
        ({"device": 0, "agent": "http://a", "dcgm": "http://b"}, "not from both"),
        ({"device": 0, "agent": "node:9401"}, "is not a URL"),
        ({"device": 0, "dcgm": "http://user@node"}, "is not a URL"),
        ({"device": 0, "index": 1}, "Extra inputs"),
    ],
)
def test_what_makes_no_sense(settings, complaint):
    with pytest.raises(ValidationError, match=complaint):
        gpu(**settings)


def test_addresses_of_one_name_do_not_share_a_gpu():
    with pytest.raises(ValidationError, match="with resolve"):
        BackendConfig.model_validate({"url": "http://a", "resolve": True, "gpu": {"device": 0}})


def pool(**settings):
    return PoolConfig.model_validate({"backends": ["http://a"], **settings})


def test_signals_are_on_unless_turned_off():
    signals = pool().signals
    assert (signals.interval, signals.timeout, signals.max_age, signals.path) == (1.0, 0.5, 5.0, "/metrics")
    assert pool().progress.stalled_after == 60.0
    assert pool(signals={"interval": "0s"}).signals.interval == 0.0
    assert pool(progress={"stalled_after": "0s"}).progress.stalled_after == 0.0


@pytest.mark.parametrize(
    ("signals", "complaint"),
    [
        ({"interval": "500ms"}, "timeout must be shorter"),
        ({"interval": "10s"}, "max_age is shorter"),
        ({"timeout": "0s"}, "greater than 0"),
        ({"path": "metrics"}, "pattern"),
    ],
)
def test_signals_that_make_no_sense(signals, complaint):
    with pytest.raises(ValidationError, match=complaint):
        pool(signals=signals)
