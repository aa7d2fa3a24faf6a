"""`queue.heartbeat`: off unless asked for, and never so often that nothing looks at the clock meanwhile."""

import pytest

from llmproxy.config import parse
from llmproxy.config.problem import ConfigError
from llmproxy.pipeline.terms import Terms

POOL = """
pools:
  main:
    backends: ["http://10.0.0.1:8000"]
    queue: {%s}
"""


@pytest.mark.parametrize(("text", "every_s"), [("max: 5", 0.0), ("heartbeat: 5s", 5.0), ("heartbeat: 100ms", 0.1)])
def test_it_arrives(text: str, every_s: float) -> None:
    assert Terms(parse(POOL % text).pools["main"], checks_keys=False).heartbeat_s == every_s


@pytest.mark.parametrize("value", ["50ms", "-1", "often"])
def test_what_cannot_be(value: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(POOL % f"heartbeat: {value}")
    assert "5: pools.main.queue" in str(refused.value)
    assert "heartbeat" in str(refused.value)
