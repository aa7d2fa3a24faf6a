"""Links follow the fleet and the authorities' files; what they counted outlives them."""

import asyncio
import shutil
from pathlib import Path

import pytest

from llmproxy.core.backend import Backend, BackendSpec
from llmproxy.core.clock import ManualClock
from llmproxy.pipeline.links import Links
from llmproxy.wire.deadlines import Deadlines
from llmproxy.wire.upstream import UpstreamConnection

KEPT = Path(__file__).parents[1] / "config" / "tls"
FIRST, SECOND = KEPT / "server.crt", KEPT / "rsa.crt"


@pytest.fixture
async def links():
    loop, clock = asyncio.get_running_loop(), ManualClock()
    return Links(loop, clock, Deadlines(loop, clock))


@pytest.fixture
def ca(tmp_path):
    path = tmp_path / "ca.crt"
    shutil.copy(FIRST, path)
    return path


def backend(id="b", **options):
    return Backend(BackendSpec(id, "https://engine:8000", host="engine", port=8000, **options))


async def test_bounds_are_taken_over_and_leavers_closed(links):
    stays, leaves = backend("s"), backend("l")
    kept, closed = links.of(stays, 1.0, 2.0), links.of(leaves, 1.0, 2.0)
    links.configure([(stays, 3.0, 4.0)])
    assert links.of(stays, 9.0, 9.0) is kept
    assert (kept.connections.connect_s, kept.connections.keepalive_s) == (3.0, 4.0)
    assert links.of(leaves, 1.0, 2.0) is not closed
    assert closed.connections._closed


async def test_a_changed_authority_is_believed_by_new_connections(links, ca):
    one, other = backend("one", tls=True, ca_file=str(ca)), backend("other", tls=True)
    fleet = [(one, 1.0, 2.0), (other, 1.0, 2.0)]
    before, beside = links.of(one, 1.0, 2.0), links.of(other, 1.0, 2.0)
    links.configure(fleet)
    assert links.of(one, 1.0, 2.0) is before, "nothing has changed"
    # Gone for a moment is no change: the old authority is better than none.
    ca.unlink()
    links.configure(fleet)
    assert links.of(one, 1.0, 2.0) is before
    shutil.copy(SECOND, ca)
    links.configure(fleet)
    after = links.of(one, 1.0, 2.0)
    assert after is not before
    assert before.connections._closed
    assert links.of(other, 1.0, 2.0) is beside
    subjects = [dict(part[0] for part in cert["subject"]) for cert in after.connections._tls.get_ca_certs()]
    assert subjects == [{"commonName": "llmproxy test 2"}]


async def test_connections_of_closed_links_stay_counted(links):
    stays, leaves = backend("s"), backend("l")
    links.of(stays, 1.0, 2.0).connections.connects = 3
    closing = links.of(leaves, 1.0, 2.0).connections
    closing.connects = 4
    running = UpstreamConnection(closing)
    closing.opened(running)
    assert links.totals() == (1, 7)
    links.configure([(stays, 1.0, 2.0)])
    assert links.totals() == (1, 7), "it is open until its exchange ends"
    closing.closed(running)
    assert links.totals() == (0, 7)
    assert links._closing == []
    links.close()
    assert links.totals() == (0, 7)
