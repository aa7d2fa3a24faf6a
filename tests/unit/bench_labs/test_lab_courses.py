"""What the lab of scaling judges by, and how a lab knows that it stood still."""

from bench.labs.noise import StandStill
from bench.labs.scaling_course import Course


def view(desired, *stages, drained_s=0.0):
    replicas = [
        {"id": f"r{number}", "stage": stage, "for_s": drained_s, "in_flight": 2} for number, stage in enumerate(stages)
    ]
    return {"desired": desired, "replicas": replicas}


def course(*wanted):
    found = Course()
    for second, desired in enumerate(wanted):
        found.saw(view(desired, *["serving"] * min(desired, 2)), 100.0 + second)
    found.legs = {"up": (100.0, 104.0), "down": (104.0, 109.0)}
    return found


def test_legs_within_which_it_flaps():
    calm = course(1, 2, 2, 3, 3, 2, 1, 1, 1)
    assert calm.turns(100.0, 109.0) == 1
    assert calm.restless(1) == []
    flapping = course(1, 2, 1, 2, 3, 2, 3, 2, 2)
    assert flapping.restless(1) == ["up: 2 times", "down: 2 times"]


def test_who_served_when():
    found = course(0, 1, 2, 3, 3)
    assert found.serving(101.0, 103.0) == [0, 1, 2]
    assert found.serving(200.0, 210.0) == [2], "nobody looked any more: what was seen last"
    assert found.changes() == ["0s 0/0", "1s 1/1", "2s 2/2", "3s 2/3"]


def test_how_long_each_was_seen_draining():
    found = Course()
    found.saw(view(1, "serving", "draining", drained_s=3.0), 1.0)
    found.saw(view(1, "serving", "draining", drained_s=4.5), 2.5)
    found.saw(view(1, "serving"), 3.0)
    assert found.drained_s == {"r1": 4.5}


def test_where_it_stood_is_told():
    found = course(1, 2)
    found.leg = "further up"
    decided = b'{"decisions": [{"before": 1, "replicas": 2, "reason": "demand: 30 requests/s"}]}'
    said = found.told({"r7": 0.0, "r8": 5.0}, decided, "one\nreplica r1 is gone")
    for part in (
        "leg: further up",
        "2 requests under way, r7 for",
        "r0 serving",
        "1 -> 2: demand",
        "proxy: replica r1",
    ):
        assert part in said
    assert "0 requests under way\n" in Course().told({}, b"", "")


async def test_a_loop_that_stood_still():
    with StandStill() as still:
        still._look()
        assert still.for_s == 0
        still._due -= 30.0
        still._look()
    assert still.for_s >= 29
