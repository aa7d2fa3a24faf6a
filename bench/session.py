"""One run of the benchmark: the upstreams, the load generator, and the peers while they are up."""

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

from bench.loadgen import LoadFailed, LoadGenerator, check_all_answered
from bench.machine import Cores
from bench.native import Programs
from bench.peers.base import Peer, Site
from bench.processes import Process, free_port, running, stop
from bench.procfs import CoreMeter, CpuMeter, resident_bytes
from bench.scale import Scale
from bench.scraper import Scraper

UPSTREAMS = 2


class PeerFailed(Exception):
    """A peer did not come up, or died."""


@dataclass(slots=True)
class Running:
    """A peer that answers on `port`. `process` is None for `direct`, the upstream itself."""

    name: str
    port: int
    share: float
    process: Process | None = None
    metrics: tuple[int, str] | None = None

    def scaled(self, amount: float) -> int:
        """The part of `amount` that this peer gets."""
        return max(1, round(amount * self.share))

    def resident_bytes(self) -> int:
        return resident_bytes(self.process.pid) if self.process else 0


@dataclass(slots=True)
class Measured:
    """What the CPU did during a block. `others_share`: the part of the proxy's core that somebody else used."""

    cpu_s: float = 0.0
    elapsed_s: float = 0.0
    others_share: float = 0.0


@dataclass(slots=True)
class Session:
    """Everything that a measurement needs. Made by `open_session`."""

    room: Path
    cores: Cores
    programs: Programs
    scale: Scale
    upstream_ports: list[int]
    scraper: Scraper
    load: LoadGenerator = field(init=False)
    _rooms: int = 0

    def __post_init__(self) -> None:
        self.load = LoadGenerator(self.programs.load, self.programs.launch, self.cores.load)

    def direct(self) -> Running:
        """The upstream without a proxy."""
        return Running("direct", self.upstream_ports[0], 1.0)

    def upstream_connections(self) -> int:
        """Connections that the upstreams have accepted so far, those of these questions included."""
        total = 0
        for port in self.upstream_ports:
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
                total += int(response.read().rpartition(b"bench_connections_accepted_total ")[2])
        return total

    @contextmanager
    def peer(self, peer: Peer) -> Iterator[Running]:
        """Start a peer, wait until it answers, warm it up, and stop it at the end of the block."""
        self._rooms += 1
        room = self.room / f"{self._rooms}-{peer.name}"
        room.mkdir()
        site = Site(room, free_port(), free_port(), self.upstream_ports)
        start = peer.prepare(site)
        log = room / "output.log"
        with running(start.command, launch=self.programs.launch, core=self.cores.proxy, log=log, env=start.env) as proc:
            _wait_until_it_answers(peer, site.port, proc, log)
            metrics = (site.metrics_port, start.metrics_path) if start.metrics_path else None
            up = Running(peer.name, site.port, peer.share, proc, metrics)
            self._warm_up(up)
            yield up

    def _warm_up(self, up: Running) -> None:
        count, streams = up.scaled(1000), up.scaled(400)
        check_all_answered(self.load.run("closed", port=up.port, clients=8, count=count))
        check_all_answered(self.load.run("closed", port=up.port, clients=8, count=streams, stream=1, chunks=5))

    @contextmanager
    def measuring(self, up: Running) -> Iterator[Measured]:
        """CPU of the peer during the block, with its metrics being scraped."""
        self.scraper.target = up.metrics
        measured = Measured()
        meter = CpuMeter(up.process.pid) if up.process else None
        core, begin = CoreMeter(self.cores.proxy), time.monotonic()
        try:
            yield measured
            measured.elapsed_s = time.monotonic() - begin
            measured.cpu_s = meter.used_s() if meter else 0.0
            measured.others_share = max(0.0, core.used_s() - measured.cpu_s) / measured.elapsed_s
        finally:
            self.scraper.target = None


def _wait_until_it_answers(peer: Peer, port: int, process: Process, log: Path) -> None:
    """Ask for a chat completion until one comes."""
    body = json.dumps({"model": "bench", "messages": [{"role": "user", "content": "hello"}]})
    deadline, seen = time.monotonic() + peer.start_s, "nothing"
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            if response.status == 200:
                return
            seen = f"status {response.status}"
        except (OSError, http.client.HTTPException) as error:
            seen = type(error).__name__
        finally:
            connection.close()
        time.sleep(0.05)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
    ended = process.poll()
    what = f"gave no answer in {peer.start_s:g} s (last: {seen})" if ended is None else f"ended with status {ended}"
    raise PeerFailed(f"{peer.name} {what}; it said:\n{tail}")


@contextmanager
def _upstream(programs: Programs, core: int) -> Iterator[int]:
    process = subprocess.Popen(
        [str(programs.launch), str(core), str(programs.stub)], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline().split()[1])
    finally:
        stop(process)


@contextmanager
def open_session(room: Path, cores: Cores, programs: Programs, scale: Scale) -> Iterator[Session]:
    """Start the upstreams and the scraper; all of it is stopped at the end of the block."""
    with ExitStack() as stack:
        ports = [stack.enter_context(_upstream(programs, cores.stub)) for _ in range(UPSTREAMS)]
        scraper = stack.enter_context(Scraper())
        yield Session(room, cores, programs, scale, ports, scraper)


Values = dict[str, float]
Take = Callable[[Session, Running], Values]


def interleave(session: Session, ups: Sequence[Running], rounds: int, take: Take) -> dict[str, list[Values]]:
    """Measure each peer once a round, in turns. A peer that fails gets no more turns, a slow one two."""
    found: dict[str, list[Values]] = {up.name: [] for up in ups}
    failed: set[str] = set()
    for turn in range(rounds):
        for up in ups:
            if up.name in failed or (up.share < 1 and turn >= 2):
                continue
            try:
                found[up.name].append(take(session, up))
            except (LoadFailed, OSError) as error:
                failed.add(up.name)
                print(f"{up.name}: {error}", file=sys.stderr)
    return found
