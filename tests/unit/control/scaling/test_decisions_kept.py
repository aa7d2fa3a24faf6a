"""Which decisions are kept for operators to look at."""

from llmproxy.control.scaling.decisions import Decisions, Record
from llmproxy.policy.scaling.base import Signals
from llmproxy.policy.scaling.decision import Decision


def test_one_that_changes_nothing_is_kept_for_its_alert() -> None:
    decisions = Decisions("main")
    for number in range(5):
        alerts = ("50% of the budget of the month is spent",) if number == 2 else ()
        decisions.add(Record(float(number), Decision(Signals(0.0, ready=1), 1, "", alerts=alerts), acts=True))
    latest, *kept = [(one["at"], len(one["alerts"])) for one in decisions.shown()]
    assert latest == (4.0, 0), "always shown"
    assert kept == [(2.0, 1), (0.0, 0)]
