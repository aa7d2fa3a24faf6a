from pathlib import Path

import pytest

from llmproxy.control.signals.dcgm import WANTED, gpu_of
from llmproxy.control.signals.samples import Samples
from llmproxy.core.backend import GpuGauges, GpuSpec

PAGES = Path(__file__).parent / "pages"
MIB = 1024.0**2


def read(name, **which):
    samples = Samples(WANTED)
    samples.feed((PAGES / f"{name}.txt").read_bytes())
    return gpu_of(samples.whole(), GpuSpec(**which), 3.0)


@pytest.mark.parametrize("which", [{"device": 0}, {"uuid": "GPU-5b4e07f6-3a86-4340-039d-25f2a83cdc43"}])
def test_a_gpu_by_number_and_by_uuid_however_many_pods_use_it(which):
    assert read("dcgm", **which) == GpuGauges(
        at=3.0,
        utilization=0.4,
        memory_used_bytes=40000 * MIB,
        memory_total_bytes=45608 * MIB,
        power_w=210.5,
        temperature_c=61.0,
        throttled=False,
        ecc_errors=2.0,
        mig=False,
    )


def test_fields_that_are_not_shown_are_unknown():
    assert read("dcgm", device=1) == GpuGauges(
        at=3.0,
        utilization=0.95,
        memory_used_bytes=41000 * MIB,
        memory_total_bytes=45000 * MIB,
        throttled=True,
        mig=False,
    )


def test_a_split_gpu_has_the_memory_of_its_instances_and_no_utilisation():
    assert read("dcgm-mig", device=0) == GpuGauges(
        at=3.0,
        memory_used_bytes=4000 * MIB,
        memory_total_bytes=40000 * MIB,
        temperature_c=48.0,
        mig=True,
    )


@pytest.mark.parametrize("which", [{"device": 2}, {"uuid": "GPU-0"}])
def test_a_gpu_that_is_not_there(which):
    assert read("dcgm", **which) is None
