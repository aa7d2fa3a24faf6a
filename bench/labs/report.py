"""The table for people and JSON for the record."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.labs.base import Finding, Lab

_NOISY = 0.1
_NOTES = 5


@dataclass(slots=True)
class Held:
    """A lab that was held: what it found, or (`failure`) why it found nothing."""

    lab: Lab
    findings: list[Finding] = field(default_factory=list)
    failure: str = ""
    took_s: float = 0.0
    others_share: float = 0.0
    stood_still_s: float = 0.0

    @property
    def met(self) -> bool:
        return not self.failure and all(finding.met for finding in self.findings)


def print_table(console: Console, labs: Sequence[Held]) -> None:
    table = Table("lab", "figure", title="Labs", title_justify="left")
    for title in ("found", "bound"):
        table.add_column(title, justify="right")
    table.add_column("")
    for held in labs:
        for finding in held.findings:
            bound = f"{finding.sense.value} {_number(finding.bound, finding.unit)}"
            table.add_row(
                held.lab.name, finding.figure, _number(finding.found, finding.unit), bound, _mark(finding.met)
            )
        if held.failure:
            table.add_row(held.lab.name, held.failure.split("\n")[0], "-", "-", "[red]failed[/]")
        table.add_section()
    console.print(table)
    for held in labs:
        for finding in held.findings:
            for note in finding.notes[:_NOTES]:
                console.print(f"{held.lab.name}: {finding.figure}: {note}", markup=False, highlight=False)
        for line in held.failure.split("\n")[1:]:
            console.print(f"{held.lab.name}: {line}")
    noisy = [f"{held.lab.name} ({100 * held.others_share:.0f} %)" for held in labs if held.others_share > _NOISY]
    if noisy:
        console.print(
            "[yellow]Not a quiet machine:[/] others used a good part of it during "
            f"{', '.join(noisy)}. A time beyond its bound there says little; run it again."
        )
    stopped = [f"{held.lab.name} ({held.stood_still_s:.0f} s)" for held in labs if held.stood_still_s > 0]
    if stopped:
        console.print(
            "[yellow]Stood still:[/] the lab was stopped, or got no core, during "
            f"{', '.join(stopped)}. A bound that was missed there says nothing; run it again."
        )


def save(labs: Sequence[Held], about: dict[str, Any], to: Path) -> None:
    content = {
        **about,
        "labs": {
            held.lab.name: {
                "title": held.lab.title,
                "met": held.met,
                "failure": held.failure or None,
                "took_s": round(held.took_s, 1),
                "others_share": round(held.others_share, 3),
                "stood_still_s": round(held.stood_still_s, 1),
                "findings": [
                    {
                        "figure": finding.figure,
                        "found": round(finding.found, 3),
                        "sense": finding.sense.value,
                        "bound": finding.bound,
                        "unit": finding.unit,
                        "met": finding.met,
                        **({"notes": finding.notes} if finding.notes else {}),
                    }
                    for finding in held.findings
                ],
            }
            for held in labs
        },
    }
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(json.dumps(content, indent=1) + "\n")


def _number(value: float, unit: str) -> str:
    return f"{value:,.1f} {unit}" if unit else f"{value:,.0f}"


def _mark(met: bool) -> str:
    return "[green]met[/]" if met else "[red]missed[/]"
