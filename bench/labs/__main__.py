"""`python -m bench.labs`: hold the labs; exit status 1 when a bound is missed (see bench/README.md)."""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.markup import escape

from bench.labs import LABS, Lab
from bench.labs.failure import LabFailed
from bench.labs.noise import NoiseMeter, StandStill
from bench.labs.report import Held, print_table, save
from bench.labs.stage import Stage
from bench.machine import commit, describe


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _arguments() -> argparse.Namespace:
    known = [lab.name for lab in LABS]
    parser = argparse.ArgumentParser(prog="python -m bench.labs", description=__doc__)
    parser.add_argument("--only", type=_names, metavar="NAMES", help="comma-separated: " + ", ".join(known))
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to save what was found")
    options = parser.parse_args()
    if unknown := set(options.only or ()) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))} (known: {', '.join(known)})")
    return options


async def _hold(lab: Lab, directory: Path) -> Held:
    directory.mkdir()
    held, meter, begin = Held(lab), NoiseMeter(), time.monotonic()
    still = StandStill()
    try:
        async with asyncio.timeout(lab.limit_s), Stage(directory) as stage:
            with still:
                held.findings = await lab.run(stage)
    except TimeoutError:
        held.failure = f"not over after {lab.limit_s:g} s"
    except (LabFailed, OSError) as error:
        held.failure = escape(str(error))
    except Exception as error:  # a defect, in the lab or in the answers it got, must not cost the other labs
        traceback.print_exc()
        held.failure = escape(f"{type(error).__name__}: {error}")
    held.took_s, held.others_share, held.stood_still_s = time.monotonic() - begin, meter.others_share(), still.for_s
    return held


async def _hold_all(console: Console, labs: Sequence[Lab], directory: Path) -> list[Held]:
    """One after the other. SIGINT and SIGTERM end the running one in order."""
    loop, main = asyncio.get_running_loop(), asyncio.current_task()
    assert main is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, main.cancel)
    found: list[Held] = []
    for lab in labs:
        console.print(f"{lab.name}: {lab.title} ...", end=" ")
        held = await _hold(lab, directory / lab.name)
        console.print(f"{held.took_s:.0f} s")
        found.append(held)
    return found


def main() -> int:
    options = _arguments()
    console = Console() if sys.stdout.isatty() else Console(width=120)
    labs = [lab for lab in LABS if (not lab.on_request if options.only is None else lab.name in options.only)]
    about: dict[str, Any] = {"taken_at": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit()}
    about["machine"] = describe()
    begin = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="labs-") as directory:
            found = uvloop.run(_hold_all(console, labs, Path(directory)))
    except asyncio.CancelledError:
        console.print("stopped")
        return 130
    about["took_s"] = round(time.monotonic() - begin)
    print_table(console, found)
    console.print(f"took {about['took_s']} s")
    if options.json:
        save(found, about, options.json)
    return 0 if all(held.met for held in found) else 1


if __name__ == "__main__":
    sys.exit(main())
