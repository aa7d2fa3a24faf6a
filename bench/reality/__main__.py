"""`python -m bench.reality`: the same requests for real and in virtual time (see docs/simulator.md)."""

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from bench.labs.failure import LabFailed
from bench.labs.noise import NoiseMeter
from bench.labs.stage import Stage
from bench.reality import emulated
from bench.reality.report import as_json, print_chats, print_compared, print_ranking
from llmproxy.calibrate.engine import EngineError
from llmproxy.cli.calibrate_report import comments
from llmproxy.sim.profile import Profile, read_profile
from llmproxy.sim.traces import read_trace

_TRACE = Path(__file__).resolve().parents[3] / "shared" / "traces" / "mooncake_conversation.csv.gz"
_PARTS = ("calibrate", "load", "chats")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.reality", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to save what was found")
    which = parser.add_subparsers(dest="which", required=True)
    one = which.add_parser("emulated", help="eight emulated engines: do policies rank as in the simulator?")
    one.add_argument("--trace", type=Path, default=_TRACE, help="default: Mooncake conversation in ../shared/traces")
    one.add_argument("--requests", type=int, default=1000, metavar="N")
    one.add_argument("--backends", type=int, default=8, metavar="N")
    one.add_argument("--load", type=float, default=0.9, help="factor on the trace's rate")
    one.add_argument("--faster", type=float, default=4.0, help="factor on the speed of trace and engines")
    one.add_argument("--policies", type=_names, default=list(emulated.POLICIES), metavar="NAMES")
    two = which.add_parser("engines", help="two real vLLM engines on the CPU (`make engines` installs them)")
    two.add_argument("--only", type=_names, default=list(_PARTS), help="comma-separated: " + ", ".join(_PARTS))
    two.add_argument("--model", help="a directory of .engines/models; default: the real one")
    two.add_argument("--profile", type=Path, help="where the profile is, or (calibrate) will be")
    two.add_argument("--share", type=float, default=0.5, help="of what the engines can do, as the profile has it")
    two.add_argument("--seconds", type=float, default=120.0, help="how long the load lasts")
    return parser.parse_args(given)


async def _emulated(options: argparse.Namespace, console: Console, directory: Path) -> tuple[dict[str, Any], bool]:
    setting = emulated.Setting(options.backends, options.load, options.faster)
    arrivals = emulated.arrivals_of(read_trace(options.trace, options.requests).arrivals, setting)
    simulated = {policy: emulated.simulated(arrivals, setting, policy) for policy in options.policies}
    measured = {}
    for policy in options.policies:
        place = directory / policy
        place.mkdir()
        meter = NoiseMeter()
        measured[policy], sent = await emulated.measured(arrivals, setting, policy, place)
        others = f"other processes took {meter.others_share():.0%} of the machine"
        console.print(f"{policy}: {measured[policy]}, {sent}; {others}", highlight=False)
    pairs = emulated.ranked(simulated, measured)
    print_ranking(console, simulated, measured, pairs)
    figures = {"simulated": simulated, "measured": measured}
    found = {name: {policy: asdict(one) for policy, one in each.items()} for name, each in figures.items()}
    return found, all(pair.agreed for pair in pairs)


async def _engines(options: argparse.Namespace, console: Console, directory: Path) -> tuple[dict[str, Any], bool]:
    from bench.reality import engines

    found: dict[str, Any] = {}
    with engines.engines(*([options.model] if options.model else [])) as pair:
        await pair.up()
        profile = read_profile(options.profile) if options.profile and options.profile.exists() else Profile()
        if "calibrate" in options.only:
            made = await engines.calibrated(pair, console.print)
            profile = made.fit.profile
            text = comments(made) + profile.yaml()
            console.print(text, highlight=False)
            if options.profile:
                options.profile.write_text(text)
        async with Stage(directory) as stage:
            if "load" in options.only:
                compared = await engines.compared(pair, stage, profile, options.share, options.seconds)
                print_compared(console, compared)
                found["load"] = as_json(compared)
            if "chats" in options.only:
                outcomes = await engines.chats(pair, stage)
                print_chats(console, outcomes)
                found["chats"] = {policy: asdict(one) for policy, one in outcomes.items()}
    return found, True


def main(given: Sequence[str] | None = None) -> int:
    options = _arguments(given)
    console = Console() if sys.stdout.isatty() else Console(width=150)
    # A terminated run ends as one that was interrupted, so that it leaves no engines behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run = _emulated if options.which == "emulated" else _engines
    with tempfile.TemporaryDirectory(prefix="llmproxy-reality-") as directory:
        try:
            found, agreed = uvloop.run(run(options, console, Path(directory)))
        except (LabFailed, EngineError, OSError) as error:
            console.print(f"[red]cannot run:[/] {error}", highlight=False)
            return 2
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if agreed else 1


if __name__ == "__main__":
    sys.exit(main())
