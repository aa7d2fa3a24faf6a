"""Counts by tenant, under a bounded number of labels."""

from llmproxy.telemetry.tenants import OTHER, Tenants


def test_the_first_are_labels_and_all_others_one() -> None:
    tenants = Tenants(most=2)
    for name in ("a", "b", "c", "d", "a"):
        tenants.count(name, 200, 10, 0)
    tenants.count("c", 401, 0, 7)
    assert tenants.requests == {("a", 200): 2, ("b", 200): 1, (OTHER, 200): 2, (OTHER, 401): 1}
    assert tenants.tokens == {
        ("a", "prompt"): 20,
        ("b", "prompt"): 10,
        (OTHER, "prompt"): 20,
        (OTHER, "completion"): 7,
    }
