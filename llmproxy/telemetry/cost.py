"""The rows of the table of metrics about money: name behind `llmproxy_`, whether it counts, labels, help."""

from typing import Final

from llmproxy.telemetry.scaling import Row

COST: Final = (
    Row("cost_per_hour", False, ("pool",), "What the pool's replicas cost in an hour, those that start or rest too."),
    Row(
        "cost_total",
        True,
        ("pool", "use"),
        "What replicas have cost: `busy` while they had a request, `idle` while they had none.",
    ),
    Row(
        "tier_cost_total",
        True,
        ("pool", "tier", "market"),
        "The same by tier of capacity (empty where there are none) and market: `on_demand` or `spot`.",
    ),
    Row("model_cost_total", True, ("pool", "model"), "The same by model, idle time included."),
    Row("tenant_cost_total", True, ("tenant",), "The same by tenant, idle time included."),
    Row(
        "cost_per_thousand_tokens",
        False,
        ("pool", "model"),
        "Cost of 1,000 tokens (prompt and generated) in the last hour, idle time included.",
    ),
    Row("cost_per_request", False, ("pool", "model"), "Cost of a request in the last hour, idle time included."),
)
