"""`python -m bench`: measure llmproxy beside its peers (see bench/README.md)."""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.loadgen import LoadFailed
from bench.machine import TooFewCores, choose_cores, commit, describe
from bench.measure import MEASURES, Measure
from bench.native import CompilerMissing, compile_programs
from bench.peers import OPTIONAL, PEERS
from bench.peers.base import Peer
from bench.report import print_measure, print_targets, save, warn_of_noise
from bench.scale import FULL, QUICK
from bench.session import PeerFailed, Running, Session, Values, interleave, open_session

Turns = dict[str, dict[str, list[Values]]]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: to see that all works")
    parser.add_argument("--peers", type=_names, help="comma-separated: " + ", ".join(peer.name for peer in PEERS))
    parser.add_argument("--only", type=_names, help="comma-separated: " + ", ".join(item.name for item in MEASURES))
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to save (a full run: bench/results)")
    options = parser.parse_args()
    for given, known in ((options.peers, {peer.name for peer in PEERS}), (options.only, {m.name for m in MEASURES})):
        unknown = set(given or ()) - known
        if unknown:
            parser.error(f"unknown: {', '.join(sorted(unknown))} (known: {', '.join(sorted(known))})")
    return options


def _installed(console: Console, wanted: Sequence[str] | None, quick: bool) -> list[Peer]:
    """The peers that can run here; says of the others what would bring them. The optional ones wait for a full run."""
    found: list[Peer] = []
    for kind in PEERS:
        skipped = kind.name in OPTIONAL and quick if wanted is None else kind.name not in wanted
        if skipped:
            continue
        peer = kind()
        missing = peer.missing()
        if missing is None:
            found.append(peer)
        elif wanted is not None or peer.name not in OPTIONAL:
            console.print(f"[yellow]{peer.name} is not installed[/] and left out. To have it: {missing}")
    return found


def _start_all(console: Console, stack: ExitStack, session: Session, peers: Sequence[Peer]) -> list[Running]:
    ups: list[Running] = []
    for peer in peers:
        try:
            ups.append(stack.enter_context(session.peer(peer)))
        except (PeerFailed, LoadFailed, OSError) as error:
            console.print(f"[red]{peer.name} left out:[/] {error}", highlight=False)
    return ups


def _shared(
    console: Console, session: Session, peers: Sequence[Peer], measures: Sequence[Measure], results: Turns
) -> None:
    """Measures for which the peers stay up, in turns."""
    with ExitStack() as stack:
        ups = _start_all(console, stack, session, peers)
        for measure in measures:
            everyone = [session.direct(), *ups] if measure.direct else ups
            results[measure.name] = interleave(session, everyone, measure.rounds(session.scale), measure.take)
            print_measure(console, results, measure)


def _fresh(
    console: Console, session: Session, peers: Sequence[Peer], measures: Sequence[Measure], results: Turns
) -> None:
    """Measures that start the peer for each turn."""
    for measure in measures:
        turns: dict[str, list[Values]] = {peer.name: [] for peer in peers}
        for _ in range(measure.rounds(session.scale)):
            for peer in peers:
                with ExitStack() as stack:
                    ups = _start_all(console, stack, session, [peer])
                    for name, values in interleave(session, ups, 1, measure.take).items():
                        turns[name].extend(values)
        results[measure.name] = turns
        print_measure(console, results, measure)


def _stop_in_order(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _run(console: Console, options: argparse.Namespace) -> None:
    scale = QUICK if options.quick else FULL
    measures = [item for item in MEASURES if options.only is None or item.name in options.only]
    about: dict[str, Any] = {"commit": commit(), "machine": describe(), "quick": options.quick, "scale": asdict(scale)}
    cores, begin = choose_cores(), time.monotonic()
    peers = _installed(console, options.peers, options.quick)
    about["versions"] = {peer.name: peer.version() for peer in peers}
    console.print(f"{about['machine']['cpu']}, {about['machine']['cores']} cores; {about['versions']}")
    results: Turns = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as room:
        programs = compile_programs(Path(room))
        with open_session(Path(room), cores, programs, scale) as session:
            shared = [item for item in measures if not item.fresh]
            if shared:
                _shared(console, session, peers, shared, results)
            _fresh(console, session, peers, [item for item in measures if item.fresh], results)
    for peer in peers:
        if peer.name.startswith("llmproxy"):
            print_targets(console, results, peer.name)
    warn_of_noise(console, results)
    about["took_s"] = round(time.monotonic() - begin)
    console.print(f"took {about['took_s']} s")
    if options.json or not options.quick:
        saved = save(results, about, options.json)
        console.print(f"saved to {saved.name if options.json is None else saved}")


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop_in_order)
    console = Console() if sys.stdout.isatty() else Console(width=150)
    try:
        _run(console, _arguments())
    except (CompilerMissing, TooFewCores) as error:
        console.print(f"[red]cannot run:[/] {error}")
        return 2
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
