"""The audit log takes whatever it is told, and tells of a change before it is made."""

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from llmproxy.control.scaling.audit import Audit
from llmproxy.control.scaling.autoscalers import Autoscalers
from llmproxy.control.scaling.events import KEPT_MAX, Event, Events


def test_any_text_that_json_can_say(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    Audit(file, lambda: 1.0).write("ops", "pause", "\ud800 caf\u00e9", pool="main")
    entry = {"at": 1.0, "who": "ops", "what": "pause", "why": "\ud800 caf\u00e9", "pool": "main"}
    assert [json.loads(line) for line in file.read_bytes().splitlines()] == [entry]


def test_what_a_full_disk_cut_short_is_said_and_spoils_no_other_entry(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "audit.jsonl"
    audit = Audit(file, lambda: 1.0)
    audit.write("ops", "pause", "first")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 10, before[1]))
    try:
        audit.write("ops", "resume", "cut short")
        audit.write("ops", "pause", "no room at all")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = [record.getMessage() for record in caplog.records if "cannot be written" in record.getMessage()]
    assert len(said) == 2
    audit.write("ops", "resume", "last")
    first, cut, last = file.read_text().splitlines()
    assert (json.loads(first)["why"], json.loads(last)["why"]) == ("first", "last")
    assert len(cut) == 10
    with file.open("a") as torn:
        torn.write('{"at"')
    Audit(file, lambda: 1.0).write("ops", "pause", "of the next process")
    assert json.loads(file.read_text().splitlines()[-1])["why"] == "of the next process"


class _Told(Audit):
    """Looks, at each entry, at what is to be changed."""

    def __init__(self, look: Callable[[], object]) -> None:
        super().__init__(None, lambda: 1.0)
        self.seen: list[tuple[str, object]] = []
        self._look = look

    def write(self, who: str, what: str, why: str, **facts: Any) -> None:
        self.seen.append((what, self._look()))


class _Loop:
    """As much of a pool's loop as has events."""

    def __init__(self, events: Events) -> None:
        self.parts = self
        self.events = events


def test_the_end_of_an_event_is_told_before_it_ends() -> None:
    events = Events(lambda: 0.0)
    events.add(Event(3, 0.0, 10.0, "ops", "launch"), "a1")
    audit = _Told(lambda: len(events.shown()))
    scaling = Autoscalers(audit, lambda: 0.0)
    scaling.scalers["main"] = cast("Any", _Loop(events))
    scaling.end_event("main", "ops", "", "a1")
    assert audit.seen == [("end event", 1)]
    assert events.shown() == []
    scaling.end_event("main", "ops", "", "a1")
    assert len(audit.seen) == 1, "there was nothing left to end"


def test_an_event_there_is_no_room_for_is_not_told() -> None:
    events = Events(lambda: 0.0)
    for _ in range(KEPT_MAX):
        events.add(Event(3, 0.0, 10.0, "ops", "launch"))
    audit = _Told(lambda: None)
    scaling = Autoscalers(audit, lambda: 0.0)
    scaling.scalers["main"] = cast("Any", _Loop(events))
    with pytest.raises(ValueError, match="100 events already"):
        scaling.event("main", "ops", "one more", replicas=3, for_s=10.0)
    assert audit.seen == []
