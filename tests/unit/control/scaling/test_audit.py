"""The audit log takes whatever it is told, and tells of a change before it is made."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from llmproxy.control.scaling.audit import Audit
from llmproxy.control.scaling.autoscalers import Autoscalers
from llmproxy.control.scaling.events import Event, Events


def test_any_text_that_json_can_say(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    Audit(file, lambda: 1.0).write("ops", "pause", "\ud800 caf\u00e9", pool="main")
    entry = {"at": 1.0, "who": "ops", "what": "pause", "why": "\ud800 caf\u00e9", "pool": "main"}
    assert [json.loads(line) for line in file.read_bytes().splitlines()] == [entry]


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
