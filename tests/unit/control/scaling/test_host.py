"""CPU and memory: of the control group where that is limited, else of the machine."""

from pathlib import Path

import pytest

from llmproxy.control.scaling.host import Host


class Machine:
    """A /proc and a /sys/fs/cgroup."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.cgroup = folder / "proc", folder / "cgroup"
        self.put("proc/stat", "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1\n")
        self.put("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 750 kB\n")

    def put(self, file: str, text: str) -> None:
        path = self.proc.parent / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def host(self) -> Host:
        return Host(self.proc, self.cgroup)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_of_the_machine_where_nothing_is_limited(machine: Machine) -> None:
    host = machine.host()
    assert host.cpu(0.0) is None
    machine.put("proc/stat", "cpu  130 0 120 850 0 0 0 0 0 0\n")
    assert host.cpu(10.0) == pytest.approx(0.5)
    assert host.memory() == pytest.approx(0.25)


def test_unknown_where_there_is_neither(tmp_path: Path) -> None:
    host = Host(tmp_path, tmp_path)
    assert (host.cpu(0.0), host.cpu(1.0), host.memory()) == (None, None, None)


def test_version_2(machine: Machine) -> None:
    machine.put("proc/self/cgroup", "0::/\n")
    machine.put("cgroup/cgroup.controllers", "cpu memory\n")
    machine.put("cgroup/cpu.max", "150000 100000\n")
    machine.put("cgroup/cpu.stat", "usage_usec 5000000\nuser_usec 1\n")
    machine.put("cgroup/memory.max", "1000\n")
    machine.put("cgroup/memory.current", "900\n")
    machine.put("cgroup/memory.stat", "anon 1\ninactive_file 300\n")
    host = machine.host()
    assert host.cpu(100.0) is None
    machine.put("cgroup/cpu.stat", "usage_usec 8000000\n")
    # 3 s of CPU in 4 s, of 1.5 cores.
    assert host.cpu(104.0) == pytest.approx(0.5)
    assert host.memory() == pytest.approx(0.6)
    # A quota may change, and be passed for a moment.
    machine.put("cgroup/cpu.max", "50000 100000\n")
    machine.put("cgroup/cpu.stat", "usage_usec 18000000\n")
    assert host.cpu(108.0) == 1.0


def test_no_limit_is_the_machine(machine: Machine) -> None:
    machine.put("proc/self/cgroup", "0::/system.slice/llmproxy.service\n")
    machine.put("cgroup/cgroup.controllers", "cpu memory\n")
    machine.put("cgroup/system.slice/llmproxy.service/cpu.max", "max 100000\n")
    machine.put("cgroup/system.slice/llmproxy.service/cpu.stat", "usage_usec 5000000\n")
    machine.put("cgroup/system.slice/llmproxy.service/memory.max", "max\n")
    machine.put("cgroup/system.slice/llmproxy.service/memory.current", "5\n")
    host = machine.host()
    host.cpu(0.0)
    machine.put("proc/stat", "cpu  130 0 120 850 0 0 0 0 0 0\n")
    assert host.cpu(10.0) == pytest.approx(0.5)
    assert host.memory() == pytest.approx(0.25)


def test_a_limit_above_holds_too_and_the_tightest_wins(machine: Machine) -> None:
    machine.put("proc/self/cgroup", "0::/slice/service\n")
    machine.put("cgroup/cgroup.controllers", "cpu memory\n")
    machine.put("cgroup/slice/cpu.max", "100000 100000\n")
    machine.put("cgroup/slice/cpu.stat", "usage_usec 0\n")
    machine.put("cgroup/slice/service/cpu.max", "400000 100000\n")
    machine.put("cgroup/slice/service/cpu.stat", "usage_usec 0\n")
    host = machine.host()
    host.cpu(0.0)
    # Others in the slice use it up.
    machine.put("cgroup/slice/cpu.stat", "usage_usec 9000000\n")
    machine.put("cgroup/slice/service/cpu.stat", "usage_usec 1000000\n")
    assert host.cpu(10.0) == pytest.approx(0.9)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("path", ["/docker/abc", "/"])
def test_version_1(machine: Machine, together: bool, path: str) -> None:
    names = "cpu,cpuacct" if together else "cpu"
    machine.put("proc/self/cgroup", f"9:memory:{path}\n4:{'cpu,cpuacct' if together else 'cpu'}:{path}\n0::/\n")
    # In a container its own group is what is mounted, whatever /proc says of it.
    machine.put(f"cgroup/{names}/cpu.cfs_quota_us", "200000\n")
    machine.put(f"cgroup/{names}/cpu.cfs_period_us", "100000\n")
    accounts = f"cgroup/{names if together else 'cpuacct'}/cpuacct.usage"
    machine.put(accounts, "1000000000\n")
    machine.put("cgroup/memory/memory.limit_in_bytes", "1000\n")
    machine.put("cgroup/memory/memory.usage_in_bytes", "900\n")
    machine.put("cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 100\n")
    host = machine.host()
    host.cpu(0.0)
    machine.put(accounts, "6000000000\n")
    assert host.cpu(10.0) == pytest.approx(0.25)
    assert host.memory() == pytest.approx(0.8)


def test_version_1_without_limits(machine: Machine) -> None:
    machine.put("proc/self/cgroup", "9:memory:/\n4:cpu:/\n")
    machine.put("cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    machine.put("cgroup/cpu/cpu.cfs_period_us", "100000\n")
    machine.put("cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    machine.put("cgroup/memory/memory.usage_in_bytes", "900\n")
    host = machine.host()
    host.cpu(0.0)
    machine.put("proc/stat", "cpu  130 0 120 850 0 0 0 0 0 0\n")
    assert host.cpu(10.0) == pytest.approx(0.5)
    assert host.memory() == pytest.approx(0.25)


def test_here() -> None:
    host = Host()
    assert 0.0 < (host.memory() or 0.0) < 1.0
    host.cpu(0.0)
    assert 0.0 <= (host.cpu(1.0) or 0.0) <= 1.0
