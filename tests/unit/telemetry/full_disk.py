"""Run by test_access_log.py: fill a disk that is really full, make room, and see every line that was kept.

`full_disk.py rlimit FILE` (a file size limit stands for the disk) or `full_disk.py tmpfs FILE` (FILE on a tiny tmpfs).
"""

import json
import logging
import os
import resource
import sys
import time
from collections.abc import Callable

from llmproxy.telemetry.access_log import AccessLog
from llmproxy.telemetry.record import AccessRecord
from llmproxy.telemetry.sink import FileSink

REPORTS: list[str] = []


class Reports(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        REPORTS.append(record.getMessage())


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true: {REPORTS}"
        time.sleep(0.002)


def fill_rlimit(path: str) -> Callable[[], None]:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def fill_tmpfs(path: str) -> Callable[[], None]:
    ballast = os.path.join(os.path.dirname(path), "ballast")
    with open(ballast, "wb") as file:
        file.write(bytes(40_000))
    return lambda: os.unlink(ballast)


def main(kind: str, path: str) -> None:
    logging.getLogger("llmproxy").addHandler(Reports())
    make_room = {"rlimit": fill_rlimit, "tmpfs": fill_tmpfs}[kind](path)
    log = AccessLog(FileSink(path), interval_s=0.005, pending_max_bytes=8_000, calm_s=0.0)
    log.start()
    appended = 0
    while not log.dropped:
        log.append(AccessRecord(0.0, f"r{appended}", "10.0.0.1", "GET", "/v1/models", status=200))
        appended += 1
        log.flush(0.01)
    full_size = os.path.getsize(path)
    make_room()
    until(lambda: len(REPORTS) == 2, "the report that it is over")
    log.append(AccessRecord(0.0, f"r{appended}", "10.0.0.1", "GET", "/v1/models", status=200))
    log.close(10)
    with open(path, "rb") as file:
        ids = [int(json.loads(line)["request_id"][1:]) for line in file.read().splitlines()]
    assert full_size < os.path.getsize(path)
    assert ids == [*range(len(ids) - 1), appended], ids
    assert len(ids) + log.dropped == appended + 1, (len(ids), log.dropped, appended)
    assert "cannot write" in REPORTS[0], REPORTS
    assert "again" in REPORTS[1], REPORTS


if __name__ == "__main__":
    main(*sys.argv[1:])
