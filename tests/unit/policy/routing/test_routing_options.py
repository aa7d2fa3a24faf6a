import random
from dataclasses import dataclass

import pytest

from llmproxy.core import registry as core_registry
from llmproxy.policy.routing import registry
from llmproxy.policy.routing.base import Unlearning
from llmproxy.policy.routing.options import OptionError, parse_options


@dataclass(frozen=True)
class Everything:
    flag: bool = False
    count: int = 1
    share: float = 0.5
    name: str = "x"
    keys: tuple[str, ...] = ()

    def __post_init__(self):
        if self.count < 0:
            raise ValueError("count must not be negative")


class TestParse:
    def test_defaults(self):
        assert parse_options(Everything, {}, "p") == Everything()

    def test_every_type(self):
        given = {"flag": True, "count": 2, "share": 1, "name": "y", "keys": ["a", "b"]}
        parsed = parse_options(Everything, given, "p")
        assert parsed == Everything(flag=True, count=2, share=1.0, name="y", keys=("a", "b"))
        assert isinstance(parsed.share, float)

    def test_one_string_makes_a_tuple(self):
        assert parse_options(Everything, {"keys": "a"}, "p").keys == ("a",)

    @pytest.mark.parametrize(
        ("option", "text", "meant"),
        [
            ("count", "12", 12),
            ("count", " +3\n", 3),
            ("share", "0.25", 0.25),
            ("share", "2", 2.0),
            ("share", ".5", 0.5),
            ("share", " 1e-2 ", 0.01),
            ("flag", "true", True),
            ("flag", "False", False),
        ],
    )
    def test_text_will_do_for_a_number_because_the_environment_has_nothing_else(self, option, text, meant):
        found = getattr(parse_options(Everything, {option: text}, "p"), option)
        assert (found, type(found)) == (meant, type(meant))

    @pytest.mark.parametrize(
        ("option", "value", "must"),
        [
            ("flag", "", "must be true or false"),
            ("count", "1.5", "must be a whole number"),
            ("count", "1_000", "must be a whole number"),
            ("count", "", "must be a whole number"),
            ("count", "9" * 5000, "must be a whole number"),
            ("share", "nan", "must be a number"),
            ("share", "inf", "must be a number"),
            ("share", "1e999", "must be a number"),
            ("share", "1,5", "must be a number"),
            ("share", "٣", "must be a number"),
            ("flag", "yes", "must be true or false"),
            ("flag", 1, "must be true or false"),
            ("count", 1.5, "must be a whole number"),
            ("count", True, "must be a whole number"),
            ("share", "half", "must be a number"),
            ("share", True, "must be a number"),
            ("share", float("nan"), "must be a number"),
            ("share", float("inf"), "must be a number"),
            ("name", 3, "must be a string"),
            ("keys", 3, "must be a name or a list of names"),
            ("keys", [1], "must be a name or a list of names"),
            ("keys", "", "must be a name or a list of names"),
        ],
    )
    def test_wrong_types_are_named(self, option, value, must):
        with pytest.raises(OptionError, match=f"routing policy p, option {option}: .*{must}") as caught:
            parse_options(Everything, {option: value}, "p")
        assert caught.value.option == option

    def test_ranges_are_the_dataclass_s_own(self):
        with pytest.raises(OptionError, match="routing policy p: count must not be negative"):
            parse_options(Everything, {"count": -1}, "p")

    def test_unknown_option_suggests(self):
        with pytest.raises(OptionError, match=r'has no option \'shar\'; did you mean "share"\? \(known: count, flag'):
            parse_options(Everything, {"shar": 1}, "p")


class TestRegistry:
    def test_every_policy_of_the_issue_is_there(self):
        wanted = {"round_robin", "random", "least_connections", "weighted", "power_of_two", "ip_hash"}
        wanted |= {"session_affinity", "expected_cost", "prefix_affinity", "scored", "kv_headroom", "gpu_utilization"}
        assert set(registry.POLICIES) == wanted

    def test_unknown_name_suggests(self):
        with pytest.raises(
            OptionError, match="no routing policy 'least_conections'; did you mean \"least_connections\""
        ):
            registry.build("least_conections", {}, random.Random(0))

    def test_option_of_a_policy_without_any(self):
        with pytest.raises(OptionError, match=r"routing policy random has no option 'seed' \(it has none\)"):
            registry.build("random", {"seed": 1}, random.Random(0))

    @pytest.mark.parametrize("options", [{"load_bound": 0.9}, {"load_bound": "big"}, {"header": "Sitzungs-Schlüssel"}])
    def test_session_affinity_checks_its_options(self, options):
        with pytest.raises(OptionError):
            registry.build("session_affinity", options, random.Random(0))


class Foreign(Unlearning):
    options_type = Everything

    def __init__(self, options, rng):
        self.options = options

    def pick(self, candidates, request, now):
        return candidates[0]


class Point:
    """Stands for an entry point of another package."""

    value = "foreign:Foreign"

    def __init__(self, name, loads):
        self.name = name
        self._loads = loads

    def load(self):
        if isinstance(self._loads, Exception):
            raise self._loads
        return self._loads


class TestEntryPoints:
    @pytest.fixture
    def installed(self, monkeypatch):
        def install(*points):
            def entry_points(*, group, name=None):
                assert group == "llmproxy.routing"
                return [point for point in points if name in (None, point.name)]

            monkeypatch.setattr(core_registry, "entry_points", entry_points)

        return install

    def test_a_third_party_s_policy_with_its_options(self, installed):
        installed(Point("foreign", Foreign))
        assert registry.build("foreign", {"count": 5}, random.Random(0)).options == Everything(count=5)
        with pytest.raises(OptionError, match="did you mean"):
            registry.build("foreign", {"cuont": 5}, random.Random(0))

    def test_it_is_suggested_without_being_loaded(self, installed):
        installed(Point("foreign", RuntimeError("loaded")))
        assert "foreign" in registry.names()
        with pytest.raises(OptionError, match='did you mean "foreign"'):
            registry.build("foregin", {}, random.Random(0))

    def test_ours_are_not_looked_up_and_not_replaced(self, installed):
        installed(Point("random", RuntimeError("loaded")))
        assert type(registry.build("random", {}, random.Random(0))).__name__ == "RandomChoice"

    def test_one_that_does_not_load_says_so(self, installed):
        installed(Point("foreign", ImportError("no module named foreign")))
        with pytest.raises(OptionError, match=r"could not be loaded: no module named foreign"):
            registry.build("foreign", {}, random.Random(0))

    def test_one_that_is_no_policy_says_so(self, installed):
        installed(Point("foreign", object()))
        with pytest.raises(OptionError, match="is not a policy class"):
            registry.build("foreign", {}, random.Random(0))
