"""Names -> classes that a configuration may name, and the options each takes: what registries of policies share."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Generic, TypeVar

P = TypeVar("P")


class OptionError(ValueError):
    """An unknown policy, or an option that is unknown or unfit. `option` names it, where it is one option's fault."""

    def __init__(self, message: str, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


@dataclass(frozen=True, slots=True)
class NoOptions:
    """For policies that have none."""


@dataclass(frozen=True, slots=True)
class Registry(Generic[P]):
    """`own` by name, and third parties' through the entry point group. `kind` is what they are called in errors."""

    kind: str
    entry_point_group: str
    own: Mapping[str, P]

    def names(self) -> tuple[str, ...]:
        """Every one that can be named, third parties' among them."""
        return tuple(sorted({*self.own, *(point.name for point in entry_points(group=self.entry_point_group))}))

    def find(self, name: str) -> P:
        """The class behind `name`. Other packages are asked only for a name that is not ours. Raises `OptionError`."""
        own = self.own.get(name)
        if own is not None:
            return own
        for point in entry_points(group=self.entry_point_group, name=name):
            try:
                loaded: P = point.load()
            except Exception as error:
                raise OptionError(f"{self.kind} {name!r} ({point.value}) could not be loaded: {error}") from error
            if not callable(loaded) or not isinstance(getattr(loaded, "options_type", None), type):
                raise OptionError(f"{self.kind} {name!r} ({point.value}) is not a policy class with an options_type")
            return loaded
        raise OptionError(f"there is no {self.kind} {name!r}{suggestion(name, self.names())}")


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """The tail of an error message about an unknown name: the nearest known one, and all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(wrong, names, n=1)
    guess = f'; did you mean "{near[0]}"?' if near else ""
    return f"{guess} (known: {', '.join(names)})" if names else f"{guess} (it has none)"
