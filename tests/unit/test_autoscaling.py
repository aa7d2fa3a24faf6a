"""From the configuration to the autoscaler's parts."""

from pathlib import Path
from typing import Any

import pytest

from llmproxy.config.loader import parse
from llmproxy.config.problem import ConfigError
from llmproxy.config.scaling import ScalingConfig
from llmproxy.control.scaling.events import Events
from llmproxy.core.clock import ManualClock
from llmproxy.policies import check_policy
from llmproxy.policy.scaling.base import Signals
from llmproxy.policy.scaling.demand import DemandLaw
from llmproxy.policy.scaling.forecast import Forecast
from llmproxy.scaling_parts import decider_of, history_of, most_of, terms_of
from llmproxy.stores.history import MemoryHistory, SqliteHistory
from llmproxy.stores.history_redis import RedisHistory


def scaling(**settings: Any) -> ScalingConfig:
    return ScalingConfig.model_validate({"max": 10, "actuator": {"kind": "process", "command": "x {port}"}} | settings)


def test_no_more_than_an_hour_is_paid_for() -> None:
    assert most_of(scaling()) == 10
    assert most_of(scaling(budget={"price_per_hour": 2.5, "per_hour": 10})) == 4
    assert most_of(scaling(budget={"price_per_hour": 2.5, "per_hour": 9.99})) == 3
    assert most_of(scaling(budget={"price_per_hour": 0.1, "per_hour": 100})) == 10


def test_tiers_have_their_own_prices_and_the_cheapest_bounds_their_number() -> None:
    tiers = [{"name": "a"}, {"name": "b", "price_per_hour": 0.5}, {"name": "c", "price_per_hour": 8}]
    settings = scaling(tiers_of_capacity=tiers, max=100, budget={"price_per_hour": 2, "per_hour": 10})
    assert most_of(settings) == 20
    tiers_of = decider_of(settings, Events(ManualClock())).tiers
    assert tiers_of is not None
    assert [one.price_per_hour for one in tiers_of.tiers] == [2.0, 0.5, 8.0]
    assert decider_of(scaling(), Events(ManualClock())).tiers is None


def test_a_tier_has_no_more_replicas_than_sets_of_gpus() -> None:
    tiers = [{"name": "a", "gpus": ["0", "1"]}, {"name": "b", "gpus": ["2,3"], "max": 5}, {"name": "c", "max": 3}]
    found = decider_of(scaling(tiers_of_capacity=tiers), Events(ManualClock())).tiers
    assert found is not None
    assert [one.max for one in found.tiers] == [2, 1, 3]


def test_a_file_alone_is_what_a_new_replica_computes(tmp_path: Path) -> None:
    file = tmp_path / "warm-up.jsonl"
    file.write_text('{"prompt": "a"}\n\n{"messages": []}\n')
    terms = terms_of(scaling(warm_up=str(file)))
    assert (terms.prompts, terms.hottest, terms.warm_up_s) == (({"prompt": "a"}, {"messages": []}), 0, 60.0)
    terms = terms_of(scaling(warm_up={"hottest": 4, "within": "5s"}))
    assert (terms.prompts, terms.hottest, terms.warm_up_s) == ((), 4, 5.0)


def test_policies_are_built_and_bounded() -> None:
    settings = scaling(min=2, policies=[{"steps": {"signal": "queue_depth", "table": {"0": 1, "5": 50}}}])
    decider = decider_of(settings, Events(ManualClock()))
    assert decider.decide(Signals(now=0.0, ready=2, queue_depth=0), 0.0).replicas == 2
    assert decider.decide(Signals(now=1.0, ready=2, queue_depth=9), 1.0).replicas == 10


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("policies: [{rules: {up: queue_dept > 5}}]", "scaling.policies[0].rules.up: "),
        ("policies: [{rules: {up: queue_dept > 5}}]", "did you mean 'queue_depth'? (column 1)"),
        ("policies: [{schedule: [{cron: '0 9 * * 8', min: 1}]}]", "(column 9)"),
        ("policies: [demnd]", 'did you mean "demand"'),
        ("policies: [{rules: {}, hold: {}}]", "one policy an entry"),
        ("min: 3, max: 2", "max is less than min"),
        ("actuator: {kind: process}", "needs `command`"),
        ("actuator: {kind: process, command: vllm serve}", "{port} must be in it"),
        ("actuator: {kind: webhook, url: 'http://h'}", "needs `url` and `secret`"),
        ("actuator: {kind: process, command: 'x {port}', ports: '9-8'}", "no range of ports"),
        ("tiers_of_capacity: [{name: a}, {name: a}]", "two are called 'a'"),
        ("tiers_of_capacity: [{name: a}, {name: b, prompt_tokens_max: 4k}]", "b takes shorter prompts than"),
        ("tiers_of_capacity: [{name: a, command: vllm}]", "tiers_of_capacity[0].command: {port} must be in it"),
        ("tiers_of_capacity: [{name: a, worth: 0}]", "tiers_of_capacity[0].worth"),
        ("warm_up: nowhere.jsonl", "scaling.warm_up: there is no file"),
        ("warm_up: {hottest: 33}", "scaling.warm_up.hottest: "),
        ("warm_up: {hotest: 3}", "did you mean `hottest`"),
        ("warm_up: {within: 0s}", "scaling.warm_up.within: "),
        ("actuator: dry_run", "pools.p.backends: is required"),
        ("budget: {price_per_hour: 2, per_hour: .inf}", "scaling.budget.per_hour: "),
        ("budget: {price_per_hour: .inf}", "scaling.budget.price_per_hour: "),
        ("budget: {price_per_hour: 2, alert_at: [50%, 0%]}", "scaling.budget.alert_at[1]: must be more than 0"),
    ],
)
def test_check_explains_mistakes_with_their_line(text: str, complaint: str) -> None:
    actuator = "" if "actuator" in text else ", actuator: {kind: process, command: 'x {port}'}"
    with pytest.raises(ConfigError) as caught:
        parse(f"pools:\n  p:\n    scaling: {{{text}{actuator}}}\n", check_policy=check_policy)
    found = [str(problem) for problem in caught.value.problems]
    assert any(complaint in one for one in found), found
    assert all(problem.line in (2, 3) for problem in caught.value.problems)


def test_a_pool_with_both_is_refused() -> None:
    text = "pools: {p: {backends: ['http://h'], scaling: {actuator: {kind: process, command: 'x {port}'}}}}"
    with pytest.raises(ConfigError, match="lists none itself"):
        parse(text, check_policy=check_policy)


def test_demand_and_forecast_are_the_default() -> None:
    policies = decider_of(scaling(), Events(ManualClock())).policies
    assert [type(one) for one in policies[:2]] == [DemandLaw, Forecast]
    named = decider_of(scaling(policies=["demand"]), Events(ManualClock())).policies
    assert Forecast not in [type(one) for one in named]


def test_where_thehistory_of_is_kept(tmp_path: Path) -> None:
    actuator = {"kind": "process", "command": "x {port}", "directory": str(tmp_path / "state")}
    beside = history_of("main", scaling(actuator=actuator))
    beside.remember("main", "a", "b")
    assert (tmp_path / "state" / "history.db").exists()
    named = history_of("main", scaling(actuator=actuator, history=str(tmp_path / "named.db")))
    assert named.fact("main", "a") is None
    assert (tmp_path / "named.db").exists()
    assert isinstance(history_of("main", scaling(actuator="dry_run")), MemoryHistory)
    redis = "redis://127.0.0.1:1/0"
    assert isinstance(history_of("main", scaling(actuator=actuator, redis=redis)), RedisHistory)
    assert isinstance(history_of("main", scaling(redis=redis, history=str(tmp_path / "named.db"))), SqliteHistory)


def test_no_more_engines_are_asked_for_than_there_are_gpus_and_ports_for() -> None:
    def most(*tiers: dict[str, Any], **actuator: Any) -> int:
        settings = scaling(
            min=5,
            actuator={"kind": "process", "command": "x {port}"} | actuator,
            tiers_of_capacity=[{"name": f"t{number}"} | tier for number, tier in enumerate(tiers)],
        )
        guardrails, found = decider_of(settings, Events(ManualClock())).guardrails, most_of(settings)
        assert guardrails.rule(20, Signals(now=0.0, ready=0, starting=0), 0.0).replicas == found
        return found

    assert most(gpus=["0", "1"]) == 2
    assert most(gpus=["0", "1"], ports="8101-8101") == 1
    assert most(ports="8101-8103") == 3
    assert most({"gpus": ["0", "1"]}, {"gpus": ["2,3"]}) == 3
    assert most({"gpus": ["0", "1"]}, {}) == 10
    assert most({}, {"gpus": ["2,3"]}, gpus=["0"]) == 2
    assert most_of(scaling(actuator={"kind": "webhook", "url": "http://a", "secret": "s", "gpus": ["0"]})) == 10
