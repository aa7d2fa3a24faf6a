"""Profiles: the step time, what a prompt takes alone, and their files."""

from pathlib import Path

import pytest

from llmproxy.sim.profile import Profile, read_profile

ROOT = Path(__file__).parents[3]


def test_the_defaults_are_the_published_ones() -> None:
    profile = Profile()
    assert profile.step_s(1, 1000, 0, 0) == pytest.approx(9.7e-3 + 3.83e-5 + 2e-3 + 9.4e-5)
    assert profile.step_s(10, 0, 990, 990 * 990) == pytest.approx(19.5e-3 + 66.5e-3 + 2e-3 + 2.9e-9 * 990 * 990)
    assert profile.at(2).step_s(1, 1000, 0, 0) == pytest.approx(profile.step_s(1, 1000, 0, 0) / 2)


def test_a_prompt_alone_is_computed_in_chunks() -> None:
    profile = Profile(max_batched_tokens=300)
    assert profile.isolated_ttft_s(500) == pytest.approx(
        profile.step_s(0, 0, 300, 300 * 300) + profile.step_s(0, 0, 200, 200 * 500)
    )


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "cpu.yaml"
    path.write_text("name: tiny on a CPU\nkv_blocks: 50\nbase_s: 1.5e-2\nspeed: 2\n")
    assert read_profile(path) == Profile(name="tiny on a CPU", kv_blocks=50, base_s=0.015, speed=2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kv_blocks: 1.5", "p.yaml:1: kv_blocks: '1.5' is not a whole number"),
        ("name: x\nspeed: fast", "p.yaml:2: speed: 'fast' is not a number"),
        ("base_s: .nan", "p.yaml:1: base_s: '.nan' is not a number"),
        ("token_s: [1]", "p.yaml:1: token_s: must be a single value"),
        ("\n\nkv_block: 5", "p.yaml:3: kv_block: there is no such thing in a profile (known: name, kv_blocks"),
        ("speed: 1\nspeed: 2", "p.yaml:2: "),
        ("speed: 0", "speed must be positive"),
        ("max_num_seqs: 0", "must be at least 1"),
        ("- 1", "p.yaml:1: a profile is a mapping"),
        ("a: [", "p.yaml:1: not YAML"),
        ("", "the file is empty"),
    ],
)
def test_faults_are_said_with_their_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r".") as caught:
        read_profile(path)
    assert words in str(caught.value)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_profile(tmp_path / "p.yaml")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    profile = Profile(name='a "name": # of one', base_s=1.25e-7, token_s=1 / 3, sequence_s=4e-3, ttft_s=5e-3, speed=2.0)
    path.write_text(profile.yaml())
    assert read_profile(path) == profile


def test_what_a_sequence_and_a_request_cost_by_themselves() -> None:
    plain, profile = Profile(), Profile(sequence_s=3e-3, ttft_s=0.5)
    assert profile.step_s(4, 100, 50, 0) == pytest.approx(plain.step_s(4, 100, 50, 0) + 4 * 3e-3)
    assert profile.isolated_ttft_s(3000) == pytest.approx(plain.isolated_ttft_s(3000) + 0.5)
    # A faster GPU makes no faster HTTP.
    assert profile.at(2).isolated_ttft_s(3000) == pytest.approx(plain.isolated_ttft_s(3000) / 2 + 0.5)
    assert profile.engine_options().ttft_s == 0.5
    with pytest.raises(ValueError, match="no time negative"):
        Profile(ttft_s=-1e-3)


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "profiles").glob("*.yaml")), ids=lambda path: path.name)
def test_published_profiles(path: Path) -> None:
    assert read_profile(path).isolated_ttft_s(1000) > 0
