import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmproxy.telemetry.access_log import AccessLog
from llmproxy.telemetry.record import AccessRecord
from llmproxy.telemetry.sink import Sink

DEADLINE_S = 20.0


class Kit:
    """What the tests of the access log share."""

    @staticmethod
    def record(number: int = 0, **fields: object) -> AccessRecord:
        record = AccessRecord(1.7e9, f"r{number}", "10.0.0.1", "POST", "/v1/chat/completions", status=200)
        for name, value in fields.items():
            setattr(record, name, value)
        return record

    @staticmethod
    def until(condition: Callable[[], object], what: str = "condition") -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come true"
            time.sleep(0.002)

    @staticmethod
    def ids(text: bytes) -> list[int]:
        """Numbers of the records in whole lines; fails on a torn line."""
        import json

        assert text == b"" or text.endswith(b"\n")
        return [int(json.loads(line)["request_id"][1:]) for line in text.splitlines()]


@pytest.fixture
def kit() -> Kit:
    return Kit()


@pytest.fixture
def start_log() -> Iterator[Callable[..., AccessLog]]:
    """Starts access logs and closes them whatever happens."""
    logs: list[AccessLog] = []

    def start(sink: Sink, **options: float) -> AccessLog:
        log = AccessLog(sink, **({"interval_s": 0.01, "calm_s": 0.0} | options))  # type: ignore[arg-type]
        logs.append(log)
        log.start()
        return log

    yield start
    for log in logs:
        log.close(0.1)


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "access.log"
