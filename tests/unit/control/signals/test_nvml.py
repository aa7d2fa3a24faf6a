"""NVIDIA's library, with a double in its place at the C API: the code from pynvml on is the real one."""

import asyncio
import threading

import pytest

from llmproxy.control.signals.nvml_library import REOPEN_S, NvmlError, NvmlLibrary
from llmproxy.control.signals.nvml_thread import Nvml
from llmproxy.core.backend import GpuGauges
from tests.harness.nvml import NvmlDouble, compiled

UUID = "GPU-11111111-1111-1111-1111-111111111111"
MIG = "MIG-22222222-2222-2222-2222-222222222222"
GIB = 1024.0**3


@pytest.fixture
def library(nvml, clock):
    library = NvmlLibrary(clock)
    yield library
    library.close()


def test_a_gpu_by_number_and_by_uuid(library, nvml):
    assert library.read(0, 5.0) == GpuGauges(
        at=5.0,
        utilization=0.4,
        memory_used_bytes=30 * GIB,
        memory_total_bytes=80 * GIB,
        power_w=250.5,
        temperature_c=61,
        throttled=False,
        ecc_errors=3,
        mig=False,
    )
    # The second has no ECC.
    assert library.read(UUID, 6.0) == library.read(1, 6.0)
    assert (library.read(1, 6.0).ecc_errors, library.read(1, 6.0).utilization) == (None, 0.9)
    assert nvml.opened == 1


@pytest.mark.parametrize(
    ("reasons", "throttled"),
    [(0x1, False), (0x4, False), (0x8, True), (0x20, True), (0x40, True), (0x80, True), (0x105, False), (0x44, True)],
)
def test_held_down_by_heat_or_power_supply_not_by_the_ordinary_limit(library, nvml, reasons, throttled):
    nvml.set(0, 10, reasons)
    assert library.read(0, 0.0).throttled is throttled


def test_a_split_gpu_and_its_instance_say_less(library, nvml):
    nvml.mig(0)
    whole = library.read(0, 0.0)
    assert (whole.mig, whole.utilization, whole.memory_used_bytes) == (True, None, 30 * GIB)
    part = library.read(MIG, 0.0)
    assert part == GpuGauges(0.0, memory_used_bytes=5 * GIB, memory_total_bytes=80 * GIB)


def test_an_old_driver_says_less(tmp_path, monkeypatch, clock):
    NvmlDouble(compiled(tmp_path, "-DOLD_DRIVER"), monkeypatch)
    library = NvmlLibrary(clock)
    gauges = library.read(0, 0.0)
    assert (gauges.throttled, gauges.mig, gauges.utilization) == (None, None, 0.4)
    library.close()


def test_all_of_them(library):
    found = library.read_all(3.0)
    assert [(gpu.index, gpu.uuid, gpu.name) for gpu in found] == [
        (0, "GPU-00000000-0000-0000-0000-000000000000", "Double A100"),
        (1, UUID, "Double A100"),
    ]
    assert found[1].gauges == library.read(1, 3.0)


@pytest.mark.parametrize("which", [7, "GPU-ffffffff-0000-0000-0000-000000000000"])
def test_a_gpu_that_is_not_there_is_nobody_elses_trouble(library, nvml, which):
    with pytest.raises(NvmlError, match=f"there is no GPU {which}"):
        library.read(which, 0.0)
    assert library.read(0, 0.0).utilization == 0.4
    assert nvml.opened == 1


def test_no_driver_is_reported_once_and_looked_for_again_later(library, nvml, clock, caplog):
    nvml.absent = True
    for _ in range(5):
        with pytest.raises(NvmlError, match="no usable NVIDIA driver") as failure:
            library.read(0, 0.0)
        assert failure.value.reported
        clock.advance(REOPEN_S * 0.9)
    assert nvml.loads == 3
    assert len(caplog.records) == 1
    nvml.absent = False
    clock.advance(REOPEN_S)
    assert library.read(0, 0.0).utilization == 0.4


def test_a_driver_that_does_not_run_is_told_from_none(library, nvml, caplog):
    nvml.refuse(9)
    with pytest.raises(NvmlError):
        library.read(0, 0.0)
    assert "Driver Not Loaded" in caplog.text


def test_a_gpu_lost_in_mid_run_and_back_again(library, nvml, clock, caplog):
    caplog.set_level("INFO")
    assert library.read(0, 0.0).utilization == 0.4
    nvml.lose(0)
    for _ in range(10):
        with pytest.raises(NvmlError, match="GPU 0: GPU is lost") as failure:
            library.read(0, 0.0)
        assert failure.value.reported
        assert library.read(1, 0.0).utilization == 0.9, "the others are read as ever"
        assert [gpu.index for gpu in library.read_all(0.0)] == [1]
        clock.advance(REOPEN_S / 3)
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    nvml.lose(0, False)
    clock.advance(REOPEN_S)
    assert library.read(0, 0.0).utilization == 0.4
    assert "GPU 0 can be read again" in caplog.text
    assert nvml.opened == 1


def test_a_driver_unloaded_in_mid_run(library, nvml, clock, caplog):
    assert library.read(0, 0.0).utilization == 0.4
    while nvml.opened:
        nvml.library.nvmlShutdown()
    nvml.refuse(9)
    for _ in range(6):
        with pytest.raises(NvmlError):
            library.read(0, 0.0)
        with pytest.raises(NvmlError):
            library.read(1, 0.0)
        clock.advance(REOPEN_S / 2)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == len(set(warnings)) <= 3
    nvml.refuse(0)
    clock.advance(REOPEN_S)
    assert [library.read(which, 0.0).utilization for which in (0, 1)] == [0.4, 0.9]


def test_without_the_package_it_says_how_to_get_it(clock, monkeypatch, caplog):
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    with pytest.raises(NvmlError, match="not installed"):
        NvmlLibrary(clock).read(0, 0.0)
    assert "llmproxy-gateway[gpu]" in caplog.text


# -- on a thread of its own --------------------------------------------------------------------------------------------


@pytest.fixture
def thread(nvml, clock):
    thread = Nvml(clock)
    yield thread
    nvml.stick(False)
    thread.close()


async def test_reads_do_not_block_the_loop(thread):
    first, second = await asyncio.gather(thread.read(0, 1.0), thread.read(UUID, 2.0))
    assert (first.utilization, second.utilization) == (0.4, 0.9)
    assert len(await thread.read_all(3.0)) == 2


async def test_failures_come_across(thread, nvml):
    with pytest.raises(NvmlError, match="there is no GPU 5"):
        await thread.read(5, 0.0)


def nvml_threads():
    return [one for one in threading.enumerate() if one.name == "nvml"]


async def test_a_driver_that_does_not_answer_costs_one_thread_and_no_more(thread, nvml, eventually):
    await thread.read(0, 0.0)
    calls = nvml.calls
    nvml.stick()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await thread.read(0, 0.0)
    await eventually(lambda: nvml.calls > calls)
    calls, threads = nvml.calls, nvml_threads()
    for which in (0, 1, UUID):
        with pytest.raises(NvmlError, match="does not answer"):
            async with asyncio.timeout(10):
                await thread.read(which, 0.0)
    assert (nvml.calls, nvml_threads()) == (calls, threads)
    nvml.stick(False)

    async def answers():
        try:
            return await thread.read(1, 0.0)
        except NvmlError:
            return None

    await eventually(lambda: not thread._given_up)
    assert (await answers()).utilization == 0.9


async def test_closing_gives_the_library_back(thread, nvml, eventually):
    await thread.read(0, 0.0)
    assert nvml.opened == 1
    thread.close()
    await eventually(lambda: nvml.opened == 0)
    assert (await thread.read(0, 0.0)).utilization == 0.4


async def test_two_proxies_in_one_process_close_only_their_own(nvml, clock, eventually):
    one, other = Nvml(clock), Nvml(clock)
    await asyncio.gather(one.read(0, 0.0), other.read(0, 0.0))
    assert nvml.opened == 2
    one.close()
    await eventually(lambda: nvml.opened == 1)
    assert (await other.read(0, 0.0)).utilization == 0.4
    other.close()
    await eventually(lambda: nvml.opened == 0)
