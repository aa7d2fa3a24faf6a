"""Which files a configuration is made from is told, each before it is read, also when it is bad."""

import shutil
from pathlib import Path

import pytest

from llmproxy.config import ConfigError, load

TEXT = """
server: {tls: {cert: tls.crt, key: keys/tls.key}}
admin: {token: "${file:token}"}
pools:
  main:
    backends:
      - {url: "https://10.0.1.10:8000", ca: ca.crt}
      - {url: "https://10.0.1.11:8000", ca: ca.crt}
      - "https://10.0.1.12:8000"
    upstream_key: "${file:keys/upstream}"
"""
NAMED = {"llmproxy.yaml", "tls.crt", "keys/tls.key", "token", "keys/upstream", "ca.crt"}


@pytest.fixture
def folder(tmp_path, tls):
    (tmp_path / "keys").mkdir()
    shutil.copy(tls / "server.crt", tmp_path / "tls.crt")
    shutil.copy(tls / "server.crt", tmp_path / "ca.crt")
    shutil.copy(tls / "server.key", tmp_path / "keys" / "tls.key")
    (tmp_path / "token").write_text("a")
    (tmp_path / "keys" / "upstream").write_text("b")
    (tmp_path / "llmproxy.yaml").write_text(TEXT)
    return tmp_path


def told(folder, **options):
    found = []
    try:
        load(folder / "llmproxy.yaml", on_file=found.append, **options)
    except ConfigError:
        found.append(None)
    return found


def test_every_file_is_told(folder):
    assert set(told(folder)) == {folder / name for name in NAMED}


@pytest.mark.parametrize("name", sorted(NAMED - {"llmproxy.yaml"}))
def test_one_that_is_missing_too(folder, name):
    (folder / name).unlink()
    found = told(folder)
    assert found[-1] is None
    assert folder / name in found


def test_of_a_text_that_is_bad_those_that_were_come_to(folder):
    (folder / "llmproxy.yaml").write_text("pools: [")
    assert told(folder) == [folder / "llmproxy.yaml", None]
    (folder / "llmproxy.yaml").write_text(TEXT + "oops: 1\n")
    assert set(told(folder)) == {None, *(folder / name for name in NAMED)}


def test_it_is_told_before_it_is_read(folder):
    """Whoever changes a file the moment it is told, changes what is read."""

    def change(path):
        if path == folder / "token":
            path.write_text("changed")

    assert load(folder / "llmproxy.yaml", on_file=change).admin.token == "changed"


def test_nobody_has_to_listen(folder):
    assert load(Path(folder / "llmproxy.yaml")).admin.token == "a"
