"""Backends from a watched file: what is taken, what is refused, what stays."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from llmproxy.config.model import PoolConfig
from llmproxy.control.discovery import FileDiscovery, read_backends
from llmproxy.core.backend import BackendSpec
from tests.harness.waiting import until


class Registrar:
    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def announce(self, pool: str, source: str, found: Sequence[BackendSpec]) -> None:
        assert source == "file"
        self.found[pool] = [spec.id for spec in found]


def pool(file: Path | None) -> PoolConfig:
    return PoolConfig.model_validate({"backends": ["http://a:1"], "discovery": {"file": file and str(file)}})


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("- {url: http://a:1, id: a}\n- {url: http://b:1, id: b, weight: 2}\n", ["a", "b"]),
        (json.dumps({"backends": [{"url": "http://a:1", "id": "a"}]}), ["a"]),
        ("[]", []),
    ],
)
def test_what_is_taken(tmp_path: Path, text: str, ids: list[str]) -> None:
    (tmp_path / "list").write_text(text)
    assert [spec.id for spec in read_backends(tmp_path / "list", "main")] == ids


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "must be a list"),
        ("a: 1", "must be a list"),
        ("- [", "no YAML"),
        ("- http://a:1\n- ftp://b", "backend 1"),
        ("- {url: http://a:1, wait: 3}", "backend 0.wait"),
        ("- http://a:1\n- http://a:1", "there twice"),
        ("- {url: http://a:1, resolve: true}", "resolve"),
        ("[" * 3000, "no YAML"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "list").write_text(text)
    with pytest.raises(ValueError, match=why):
        read_backends(tmp_path / "list", "main")


async def test_a_file_is_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "llmproxy.control.discovery")
    registrar, file = Registrar(), tmp_path / "list.yaml"
    discovery = FileDiscovery(registrar, look_every_s=0.01)  # type: ignore[arg-type]
    await discovery.apply({"main": pool(file)})
    assert registrar.found == {}, "it may come to be later"
    discovery.start()
    try:
        file.write_text("- {url: http://a:1, id: a}")
        await until(lambda: registrar.found.get("main") == ["a"], "the first list")
        file.write_text("- {url: nonsense}")
        await until(lambda: "is not taken" in caplog.text, "a complaint")
        assert registrar.found["main"] == ["a"]
        file.unlink()
        file.with_suffix(".new").write_text("- {url: http://b:1, id: b}")
        file.with_suffix(".new").rename(file)
        await until(lambda: registrar.found["main"] == ["b"], "the next list")
        await discovery.apply({"main": pool(None)})
        assert registrar.found["main"] == []
    finally:
        await discovery.stop()
