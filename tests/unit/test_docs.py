"""What the documents show works: every configuration in them loads, every link leads somewhere."""

import re
from pathlib import Path

import pytest
import yaml

from llmproxy.config.loader import parse
from llmproxy.policies import check_policy

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "bench" / "README.md"])
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL))
    if re.search(r"^pools:", block, re.MULTILINE)
]


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("block", BLOCKS)
def test_configurations_load(block: str, tmp_path: Path) -> None:
    # Secrets that an example reads from files.
    (tmp_path / "vllm-key").write_text("k")
    block = block.replace("/run/secrets/", f"{tmp_path}/")
    parse(block, base=tmp_path, env={"VLLM_KEY": "k", "LLMPROXY_ADMIN_TOKEN": "t"}, check_policy=check_policy)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_compose_file() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = compose["services"]
    gpus = [
        device["device_ids"]
        for service in services.values()
        for device in service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
    ]
    assert gpus == [["0"], ["1"]]
    assert {"llmproxy", "redis", "prometheus"} <= set(services)
    mounted = services["llmproxy"]["volumes"][0].split(":")[0]
    config = parse((ROOT / mounted).read_text(), env={"LLMPROXY_ADMIN_TOKEN": "t"}, check_policy=check_policy)
    hosts = {backend.spec(name).host for name, pool in config.pools.items() for backend in pool.backends}
    assert hosts == {name for name in services if name.startswith("vllm-")}
    assert f"{config.server.port}:{config.server.port}" in services["llmproxy"]["ports"]
    assert config.admin.port == 8081
    scraped = yaml.safe_load(
        compose["configs"]["prometheus"]["content"].replace("${LLMPROXY_ADMIN_TOKEN:-change-me}", "t")
    )
    targets = [target for job in scraped["scrape_configs"] for target in job["static_configs"][0]["targets"]]
    assert [target.split(":")[0] in services for target in targets] == [True] * 3


def test_changelog_is_kept() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
