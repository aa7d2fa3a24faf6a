"""Coroutines driven by hand: whatever happens, each ends exactly once, and none is left suspended."""

import gc

import pytest

from llmproxy.core.step import Cancelled, Signal, Steps


class Story:
    """A coroutine under `Steps`, with a note of what it went through. `script(story)` is its body."""

    def __init__(self, script, **signals):
        self.notes = []
        self.ends = []
        self.signals = signals
        self.steps = Steps(script(self), self.ends.append)

    def note(self, what):
        self.notes.append(what)

    def start(self):
        self.steps.resume()
        return self

    def __getattr__(self, name):
        return self.signals.setdefault(name, Signal())


async def two_waits(story):
    story.note("begun")
    try:
        story.note(await story.first)
        story.note(await story.second)
    except Cancelled:
        story.note("cancelled")
        raise
    finally:
        story.note("cleaned")


def test_runs_to_each_await_and_to_the_end():
    story = Story(two_waits)
    assert story.notes == []
    story.start()
    assert story.notes == ["begun"]
    story.first.set(1)
    assert story.notes == ["begun", 1]
    assert not story.steps.ended
    story.second.set(2)
    assert story.notes == ["begun", 1, 2, "cleaned"]
    assert story.steps.ended
    assert story.ends == [None]


def test_set_before_it_is_awaited():
    story = Story(two_waits)
    story.first.set("a")
    story.second.set("b")
    story.start()
    assert story.notes == ["begun", "a", "b", "cleaned"]
    assert story.ends == [None]


def test_none_is_a_value():
    story = Story(two_waits).start()
    story.first.set(None)
    story.second.set(None)
    assert story.notes == ["begun", None, None, "cleaned"]


def test_the_first_value_counts():
    story = Story(two_waits)
    story.first.set(1)
    story.first.set(2)
    story.first.fail(ValueError())
    story.start()
    story.second.fail(KeyError("k"))
    story.second.set(3)
    story.second.fail(ValueError())
    assert story.notes == ["begun", 1, "cleaned"]
    assert [type(error) for error in story.ends] == [KeyError]


def test_setting_again_does_not_resume_again():
    """The coroutine stands at its second await by then."""
    story = Story(two_waits).start()
    story.first.set(1)
    story.first.set(1)
    story.first.fail(ValueError())
    assert story.notes == ["begun", 1]
    story.second.set(2)
    assert story.ends == [None]


@pytest.mark.parametrize("before", [True, False])
def test_a_failure_is_raised_at_the_await(before):
    async def script(story):
        try:
            await story.first
        except ValueError as error:
            story.note(str(error))
            await story.second

    story = Story(script)
    if before:
        story.first.fail(ValueError("bad"))
    story.start()
    story.first.fail(ValueError("bad"))
    assert story.notes == ["bad"]
    story.second.set(None)
    assert story.ends == [None]


def test_a_failure_nobody_catches_ends_it():
    error = ValueError()
    story = Story(two_waits).start()
    story.first.fail(error)
    assert story.notes == ["begun", "cleaned"]
    assert story.ends == [error]


def test_an_exception_ends_it():
    async def script(story):
        raise RuntimeError("at once")

    assert [str(error) for error in Story(script).start().ends] == ["at once"]


def test_one_that_never_waits():
    async def script(story):
        story.note("ran")

    story = Story(script).start()
    assert story.notes == ["ran"]
    assert story.ends == [None]


@pytest.mark.parametrize("waits", [0, 1])
def test_cancelled_at_an_await(waits):
    story = Story(two_waits).start()
    if waits:
        story.first.set(1)
    story.steps.cancel()
    assert story.notes[-2:] == ["cancelled", "cleaned"]
    assert story.steps.ended
    assert story.ends == [None]
    # What it waited for comes too late, and finds nobody.
    story.first.set(1)
    story.second.set(2)
    story.steps.cancel()
    assert story.notes[-2:] == ["cancelled", "cleaned"]
    assert story.ends == [None]


def test_cancelled_is_no_exception_to_catch_by_accident():
    async def script(story):
        try:
            await story.first
        except Exception:
            story.note("caught")

    story = Story(script).start()
    story.steps.cancel()
    assert story.notes == []
    assert story.ends == [None]


def test_cancelled_while_it_runs():
    """By its own doing, somewhere down the stack: it goes on to its next await, and ends there."""

    async def script(story):
        try:
            await story.first
            story.steps.cancel()
            assert not story.steps.ended
            story.note("still running")
            await story.second
            story.note("not reached")
        finally:
            story.note("cleaned")

    story = Story(script).start()
    story.first.set(None)
    assert story.notes == ["still running", "cleaned"]
    assert story.ends == [None]
    story.second.set(None)
    assert story.ends == [None]


def test_cancelled_while_it_runs_to_its_end():
    async def script(story):
        await story.first
        story.steps.cancel()
        story.note("done")

    story = Story(script).start()
    story.first.set(None)
    assert story.notes == ["done"]
    assert story.ends == [None]


def test_cancelled_while_it_runs_and_what_it_waits_for_is_there():
    """An await that need not wait is no place to stop at."""

    async def script(story):
        story.steps.cancel()
        story.note(await story.first)
        await story.second
        story.note("not reached")

    story = Story(script)
    story.first.set("there")
    story.start()
    assert story.notes == ["there"]
    assert story.ends == [None]


def test_cancelled_before_it_began():
    story = Story(two_waits)
    story.steps.cancel()
    story.steps.cancel()
    assert story.ends == []
    story.start()
    assert story.notes == ["begun", "cancelled", "cleaned"]
    assert story.ends == [None]


def test_cancelled_after_the_end():
    story = Story(two_waits)
    story.first.set(1)
    story.second.set(2)
    story.start()
    story.steps.cancel()
    assert story.ends == [None]


def test_one_that_swallows_its_cancellation_has_ended():
    async def script(story):
        try:
            await story.first
        except Cancelled:
            story.note("no matter")

    story = Story(script).start()
    story.steps.cancel()
    assert story.notes == ["no matter"]
    assert story.ends == [None]


def test_an_error_while_cleaning_up_is_told():
    async def script(story):
        try:
            await story.first
        finally:
            raise ValueError("in cleanup")

    story = Story(script).start()
    story.steps.cancel()
    assert [str(error) for error in story.ends] == ["in cleanup"]


async def waits_in_cleanup(story):
    try:
        await story.first
    finally:
        story.note("cleaning")
        try:
            await story.second
        finally:
            story.note("cleaned")


async def waits_in_cleanup_after_cancelling_itself(story):
    story.steps.cancel()
    await waits_in_cleanup(story)


async def waits_and_waits_in_cleanup(story):
    try:
        await waits_in_cleanup(story)
    finally:
        while len(story.notes) < 5:
            story.note("again")
            try:
                await story.third
            except BaseException:
                story.note("no end")


@pytest.mark.parametrize(
    "script", [waits_in_cleanup, waits_in_cleanup_after_cancelling_itself, waits_and_waits_in_cleanup]
)
def test_waiting_while_cleaning_up_is_an_error_and_leaks_nothing(script):
    story = Story(script).start()
    story.steps.cancel()
    assert story.notes[:2] == ["cleaning", "cleaned"]
    assert story.steps.ended
    assert [type(error) for error in story.ends] == [RuntimeError]
    story.second.set(None)
    story.third.set(None)
    assert len(story.ends) == 1
    # Nothing suspended is left for the collector to complain of.
    del story
    gc.collect()


def test_resumed_from_inside_another():
    """Setting a signal runs the other coroutine in the same call."""
    order = []

    async def waiter(story):
        await story.go
        order.append("waiter")

    waiting = Story(waiter).start()

    async def setter(story):
        order.append("before")
        waiting.go.set(None)
        order.append("after")

    Story(setter).start()
    assert order == ["before", "waiter", "after"]


def test_cancelled_from_inside_another_that_it_resumed():
    """A resumes B, B ends A: A goes on to its next await."""

    async def first(story):
        other.go.set(None)
        story.note("back")
        await story.never

    async def second(story):
        await story.go
        one.steps.cancel()

    one, other = Story(first), Story(second).start()
    one.start()
    assert one.notes == ["back"]
    assert one.ends == [None]
    assert other.ends == [None]


def test_an_end_that_cancels():
    """`on_end` is told when it is over; cancelling then does nothing."""
    steps = []

    async def script():
        pass

    ends = []

    def on_end(error):
        steps[0].cancel()
        ends.append(error)

    steps.append(Steps(script(), on_end))
    steps[0].resume()
    assert ends == [None]


def test_nested_awaits_and_with_blocks_end_in_order():
    class Place:
        def __init__(self, story, name):
            self.story, self.name = story, name

        def __enter__(self):
            self.story.note(f"enter {self.name}")

        def __exit__(self, kind, *_):
            self.story.note(f"leave {self.name} {kind.__name__ if kind else None}")

    async def inner(story):
        with Place(story, "inner"):
            return await story.first

    async def script(story):
        with Place(story, "outer"):
            story.note(await inner(story))
            await story.second

    story = Story(script).start()
    story.steps.cancel()
    assert story.notes == ["enter outer", "enter inner", "leave inner Cancelled", "leave outer Cancelled"]

    story = Story(script).start()
    story.first.set("x")
    story.second.fail(KeyError())
    assert story.notes == ["enter outer", "enter inner", "leave inner None", "x", "leave outer KeyError"]
