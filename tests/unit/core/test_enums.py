from enum import Enum

import pytest

from llmproxy.core.enums import plain


@plain
class Colour(Enum):
    RED = "red"
    BLUE = "blue"


def test_members_stay_what_they_were() -> None:
    assert list(Colour) == [Colour.RED, Colour.BLUE]
    assert Colour("red") is Colour.RED is Colour["RED"]
    assert (Colour.RED.name, Colour.RED.value) == ("RED", "red")
    assert isinstance(Colour.RED, Colour)


def test_members_are_plain_attributes() -> None:
    assert vars(Colour)["RED"] is Colour.RED


def test_members_are_keys_by_identity() -> None:
    assert hash(Colour.RED) == object.__hash__(Colour.RED)
    assert {Colour.RED: 1}[Colour("red")] == 1


def test_members_still_cannot_be_replaced() -> None:
    with pytest.raises(AttributeError):
        Colour.RED = "green"  # type: ignore[misc,assignment]
