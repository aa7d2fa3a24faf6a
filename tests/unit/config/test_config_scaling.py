"""What is checked between a pool's scaling and what it leans on, and how it is shown."""

import pytest
from typer.testing import CliRunner

from llmproxy.cli import app
from llmproxy.config import parse
from llmproxy.policies import check_policy

POOL = """\
pools:
  a:
    scaling:
      max_concurrency: 8
      actuator: {kind: webhook, url: 'http://w', secret: s}
"""


def warnings_of(text):
    found = []
    parse(POOL + text, "f", env={}, on_warning=found.append)
    return [str(problem) for problem in found]


@pytest.mark.parametrize(
    ("policy", "at"),
    [
        ("rules: {up: 'prometheus.backlog > 5'}", "a.scaling.policies[0].rules.up"),
        ("{name: hold, options: {down: 'avg(prometheus.backlog) < 5 for 60s'}}", "a.scaling.policies[0].options.down"),
        ("target: {signal: prometheus.backlog, value: 3}", "a.scaling.policies[0].target.signal"),
    ],
)
def test_a_query_that_nobody_asks(errors_of, policy, at):
    query = "      prometheus: {backlogs: {url: 'http://p', query: up}}\n"
    [found] = errors_of(f"{POOL}{query}      policies:\n        - {policy}\n", check_policy=check_policy)
    assert found.startswith(f"8: pools.{at}: scaling.prometheus has no query 'backlog'; did you mean `backlogs`?")
    right = query.replace("backlogs", "backlog")
    assert parse(f"{POOL}{right}      policies:\n        - {policy}\n", "f", env={}, check_policy=check_policy)


@pytest.mark.parametrize("name", ["gpu-temp", "gpu.temp", "temp"])
def test_a_signal_is_a_query_s_whole_name(errors_of, name):
    query = f"      prometheus: {{{name}: {{url: 'http://p', query: up}}}}\n"
    policy = f"steps: {{signal: prometheus.{name}, table: {{0: 1, 5: 2}}}}"
    assert parse(f"{POOL}{query}      policies:\n        - {policy}\n", "f", env={}, check_policy=check_policy)
    wrong = policy.replace(name, f"{name}-x")
    [found] = errors_of(f"{POOL}{query}      policies:\n        - {wrong}\n", check_policy=check_policy)
    assert f"has no query '{name}-x'" in found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("min: 1, max: 4", None),
        ("min: 2, max: 4, budget: {price_per_hour: 2.5, per_hour: 5}", None),
        ("min: 2, max: 4, budget: {price_per_hour: 2.5, per_hour: 4.99}", "pays for 1 at once, and min is 2"),
        ("min: 0, max: 4, budget: {price_per_hour: 2.5, per_hour: 1}", "pays for no replica at all"),
    ],
)
def test_a_budget_that_does_not_pay_for_the_least(text, said):
    found = warnings_of("".join(f"      {part}\n" for part in text.split(", ", 2)))
    assert len(found) == (said is not None)
    assert said is None or (said in found[0] and "pools.a.scaling.budget.per_hour: " in found[0])


@pytest.mark.parametrize(
    ("text", "warns"),
    [("", True), ("      history: spent.db\n", False), ("      redis: redis://127.0.0.1:6379/0\n", False)],
)
def test_a_budget_of_the_month_that_a_restart_would_forget(text, warns):
    found = warnings_of("      budget: {price_per_hour: 2.5, per_month: 5000}\n" + text)
    assert [one for one in found if "pools.a.scaling.budget.per_month: what is spent" in one] == found
    assert bool(found) == warns


def test_check_shows_how_a_pool_scales(tmp_path):
    path = tmp_path / "proxy.yaml"
    path.write_text(POOL + "      max: 4\n      budget: {price_per_hour: 2, per_hour: 20}\n      policies: [demand]\n")
    result = CliRunner().invoke(app, ["check", str(path)])
    assert result.exit_code == 0
    for shown in ("Scaling", "scaled", "1 to 4", "demand", "20 USD an hour", "webhook"):
        assert shown in result.stdout
    path.write_text("pools: {a: {backends: ['http://a']}}\n")
    assert "Scaling" not in CliRunner().invoke(app, ["check", str(path)]).stdout


@pytest.mark.parametrize(
    ("lines", "warns"),
    [
        ("budget: {per_hour: 20, per_month: 5000, currency: EUR, alert_at: [50%, 80%, 100%]}", True),
        ("budget: {price_per_hour: 1, per_hour: 20}", False),
        ("budget: {per_hour: 20}\n      tiers_of_capacity: [{name: a, price_per_hour: 2}]", False),
        ("budget: {per_hour: 20}\n      tiers_of_capacity: [{name: a, price_per_hour: 2}, {name: b}]", True),
    ],
)
def test_a_budget_without_a_price_says_what_it_counts_with(lines, warns):
    found = warnings_of(f"      max: 4\n      {lines}\n")
    assert any("without price_per_hour each replica is taken to cost 1 " in one for one in found) == warns


def test_one_query_needs_no_name():
    text = f"{POOL}      prometheus: {{url: 'http://p', query: up, token: t}}\n      policies:\n        - "
    one = parse(f"{text}rules: {{up: prometheus.query > 5}}\n", "f", env={}, check_policy=check_policy)
    scaling = one.pools["a"].scaling
    assert scaling is not None
    assert {name: query.query for name, query in scaling.prometheus.items()} == {"query": "up"}


@pytest.mark.parametrize("name", ["url", "token"])
def test_what_a_query_without_a_name_is_made_of_is_no_query(errors_of, name):
    query = "      prometheus: {url: 'http://p', query: up, token: t}\n"
    [found] = errors_of(f"{POOL}{query}      policies:\n        - rules: {{up: prometheus.{name} > 5}}\n")
    assert f"scaling.prometheus has no query '{name}'" in found


def test_sets_of_gpus_that_share_one_are_not_counted_twice() -> None:
    found: list[str] = []
    text = (
        "pools: {a: {scaling: {max: 3, max_concurrency: 8, "
        "actuator: {kind: process, command: 'x {port}', gpus: ['0,1', '0', '1']}}}}"
    )
    parse(text, "f", env={}, on_warning=lambda problem: found.append(str(problem)))
    assert any("more than the 2 engines there are GPUs" in one for one in found)


def test_more_than_the_machine_has_room_for_is_warned_of() -> None:
    found: list[str] = []
    text = (
        "pools: {a: {scaling: {max: 3, max_concurrency: 8, "
        "actuator: {kind: process, command: 'x {port}', gpus: ['0', '1'], ports: 8101-8103}}}}"
    )
    parse(text, "f", env={}, on_warning=lambda problem: found.append(str(problem)))
    assert len(found) == 1
    assert "more than the 2 engines there are GPUs or ports for" in found[0]
    found.clear()
    parse(text.replace("'1'", "'1', '2'"), "f", env={}, on_warning=lambda problem: found.append(str(problem)))
    assert found == []
