"""Prometheus' text format: against prometheus_client's parser, split anywhere, and with everything that is none."""

from math import isfinite
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from llmproxy.control.signals.samples import LINE_MAX_BYTES, PAGE_MAX_BYTES, Sample, Samples

PAGES = sorted((Path(__file__).parent / "pages").glob("*.txt"))
NAMES = {b"a", b"b_total", b"c:d"}


def read(page, wanted=NAMES, *cuts):
    samples = Samples(wanted)
    for start, end in zip((0, *cuts), (*cuts, len(page)), strict=True):
        samples.feed(page[start:end])
    return samples.whole()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_real_pages_are_read_as_the_client_library_reads_them(path):
    page = path.read_bytes()
    expected = [
        # DCGM does not give its counters the suffix that the client library has them end in.
        (sample.name.replace("VOL_TOTAL_total", "VOL_TOTAL"), sample.labels, float(sample.value))
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
        if isfinite(sample.value)
    ]
    found = read(page, {name.encode() for name, _, _ in expected})
    assert len(found) > 3
    assert sorted(map(repr, expected)) == sorted(repr((s.name, dict(s.labels), s.value)) for s in found)


PAGE = b'# HELP a x{y="z"} 1\n# TYPE a gauge\na{l="1",m="x} 7 {"} 2\nz 5\nb_total 1e3 1700000000\nc:d{} 4'


def test_wherever_the_page_is_split():
    whole = [Sample("a", {"l": "1", "m": "x} 7 {"}, 2.0), Sample("b_total", {}, 1000.0), Sample("c:d", {}, 4.0)]
    for cut in range(len(PAGE) + 1):
        assert read(PAGE, NAMES, cut) == whole, f"split at {cut}"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b'a{l="x\\"y\\\\z\\nw"} 1', {"l": 'x"y\\z\nw'}),
        (b'a{l="",} 1', {"l": ""}),
        (b'a{ l = "1" , m="2" } 1', {"l": "1", "m": "2"}),
        ('a{l="ü, \'"} 1'.encode(), {"l": "ü, '"}),
    ],
)
def test_labels(line, value):
    [sample] = read(line + b"\n")
    assert sample.labels == value


@pytest.mark.parametrize(
    "line",
    [
        b"a",
        b"a ",
        b"a{} ",
        b"a x",
        b"a NaN",
        b"a +Inf",
        b"a{l} 1",
        b'a{l="1 2',
        b"a{l=1} 2",
        b'a{l="1"m} 2',
        b"ab 1",
        b'ab{a="1"} 1',
        b"#a 1",
        b" a 1",
        b"\xff\xfe 1",
    ],
)
def test_what_is_no_sample_of_ours_is_left_out(line):
    assert read(line + b"\na 1\n") == [Sample("a", {}, 1.0)]


def test_an_endless_page_is_given_up():
    samples = Samples(NAMES)
    fed = 0
    while not samples.feed(b"z 1\n" * 4096):
        fed += 4 * 4096
        assert fed <= PAGE_MAX_BYTES
    assert samples.too_long


def test_an_endless_line_is_given_up():
    samples = Samples(NAMES)
    fed = 0
    while not samples.feed(b"a" * 4096):
        fed += 4096
        assert fed <= LINE_MAX_BYTES
    assert samples.whole() == []


@given(st.lists(st.sampled_from([b'a{l="', b'"', b"} ", b"a", b"1", b"\n", b"\\", b"{", b",", b"=", b"NaN", b"\xff"])))
def test_no_text_breaks_it_and_no_split_changes_what_it_reads(parts):
    page = b"".join(parts)
    whole = read(page)
    assert read(page, NAMES, len(page) // 2) == whole
    assert all(isfinite(sample.value) for sample in whole)
