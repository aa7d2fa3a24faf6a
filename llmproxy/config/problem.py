"""What is wrong with a configuration, and where: `proxy.yaml:7: pools.a.backends[1].weight: must be more than 0`."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

Path = tuple[str | int, ...]
"""The way to a value: keys and list positions."""

_PLAIN_KEY = re.compile(r"[\w./:@+-]+", re.ASCII)
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Problem:
    """One line of complaint. `line` counts from 1; None when the whole file is meant. Never holds a secret."""

    file: str
    line: int | None
    path: str
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class ConfigError(Exception):
    """The configuration cannot be used. `problems` has everything found, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        lines = [str(problem) for problem in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            lines.append(f"... and {len(self.problems) - _SHOWN} more")
        return "\n".join(lines)


def dotted(path: Path) -> str:
    """`("pools", "llama", "backends", 1)` as `pools.llama.backends[1]`; odd keys are quoted, so a line stays a line."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if len(part) <= 100 else part[:100] + "..."
            text += ("." if text else "") + (key if _PLAIN_KEY.fullmatch(key) else json.dumps(key))
    return text
