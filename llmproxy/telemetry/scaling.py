"""The autoscaler's rows of the table of metrics: name behind `llmproxy_scaling_`, whether it counts, labels, help."""

from typing import Final, NamedTuple


class Row(NamedTuple):
    name: str
    counts: bool
    labels: tuple[str, ...]
    help: str


SCALING: Final = (
    Row(
        "desired_replicas", False, ("pool",), "Replicas the autoscaler is bringing about, ready and starting together."
    ),
    Row("replicas", False, ("pool", "stage"), "Replicas by stage (`starting`, `serving`, `draining`, `standby`, ...)."),
    Row("wanted_replicas", False, ("pool", "policy"), "What each scaling policy wanted last, where it had an opinion."),
    Row(
        "decisions_total",
        True,
        ("pool", "policy", "direction"),
        "Decisions, by the policy that won (`none`: nobody had an opinion) and direction (`up`, `down`, `same`).",
    ),
    Row(
        "starts_total",
        True,
        ("pool", "result"),
        "Replicas that came up (`ok`), that did not (`failed`), and that ended or hung later on (`died`).",
    ),
    Row("tier_replicas", False, ("pool", "tier"), "Replicas by tier of capacity, those that start or end too."),
    Row(
        "tier_requests_total",
        True,
        ("pool", "tier"),
        "Requests whose prompt, by estimate, fits no smaller tier of capacity than this one.",
    ),
    Row(
        "changes_total",
        True,
        ("pool", "direction"),
        "Changes brought about: as many served as were wanted (`up`), or all that were to go were gone (`down`).",
    ),
    Row(
        "change_seconds_total",
        True,
        ("pool", "direction"),
        "Time these changes took, from the decision on; over `changes_total` it is the time to scale up, or down.",
    ),
    Row(
        "cold_start_requests_total",
        True,
        ("pool", "result"),
        "Requests that had to wait for a place (`waited`), or failed or were shed (`failed`), while a replica that had "
        "been asked for did not serve yet.",
    ),
    Row("cold_start_seconds", False, ("pool",), "From starting a replica to its first token: configured, or learned."),
    Row(
        "forecast_skill_ratio",
        False,
        ("pool", "dimension"),
        "By what share the forecast errs less than no forecast (negative: more), over the last day; absent until it "
        "was judged. Unless it is above 0 the forecast may not act.",
    ),
    Row(
        "spent", False, ("pool", "window"), "Spent in this `hour` and this `month` (UTC), where the pool has a budget."
    ),
    Row("budget", False, ("pool", "window"), "What may be spent in an `hour` and in a `month`, where that is limited."),
    Row("leader", False, ("pool",), "1 in the proxy that scales the pool."),
    Row("paused", False, ("pool",), "1 while scaling is paused."),
    Row("backoff_seconds", False, ("pool",), "How long no replica is started, after some that failed."),
)
