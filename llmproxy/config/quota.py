"""What somebody may use: the shape of a tier, of a tier's models and of a key's own limits."""

import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from llmproxy.config.section import Section
from llmproxy.core.limits import BUDGET_MAX, MICRO, SIZE_MAX, Quota, Tier

_COUNT = r"^\s*[0-9]+(\.[0-9]+)?\s*[kKmMgG]?\s*$"
_FACTORS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3}


def parse_count(value: Any) -> int:
    """A number from `20k`, `1.5M` or a plain whole number. ValueError for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and len(value) < 30 and re.match(_COUNT, value):
        text = value.strip()
        number = Decimal(text.rstrip("kKmMgG").strip()) * _FACTORS[text[-1].lower() if text[-1].isalpha() else ""]
        if number == int(number):
            return int(number)
    shown = repr(value) if len(str(value)) <= 60 else "this"
    raise ValueError(f"{shown} is not a count: write a whole number, such as 500, 20k or 1.5M")


Count = Annotated[
    int,
    BeforeValidator(parse_count),
    Field(ge=1, le=SIZE_MAX),
    WithJsonSchema({"type": ["string", "integer"], "pattern": _COUNT, "minimum": 1, "examples": ["20k", 500]}),
]
"""A whole number of requests or tokens."""
BudgetCount = Annotated[
    int,
    BeforeValidator(parse_count),
    Field(ge=1, le=BUDGET_MAX),
    WithJsonSchema({"type": ["string", "integer"], "pattern": _COUNT, "minimum": 1, "examples": ["5M"]}),
]
"""The same, of a budget."""
Money = Annotated[float, Field(gt=0, le=BUDGET_MAX / MICRO)]
"""In whatever currency `limits.prices` are in."""


class BurstConfig(Section):
    requests: Count | None = Field(None, description="Requests at once; by default `requests_per_minute`.")
    tokens: Count | None = Field(None, description="Tokens at once; by default `tokens_per_minute`.")


class BudgetsConfig(Section):
    tokens_per_day: BudgetCount | None = Field(None, description="Tokens from midnight to midnight (UTC).")
    tokens_per_month: BudgetCount | None = Field(None, description="Tokens in a calendar month (UTC).")
    cost_per_day: Money | None = Field(None, description="Money in a day, at `limits.prices`.")
    cost_per_month: Money | None = Field(None, description="Money in a calendar month.")


class QuotaConfig(Section):
    """What is left out is not limited."""

    requests_per_minute: Count | None = Field(None, description="Requests a minute, refilled continuously.")
    tokens_per_minute: Count | None = Field(
        None, description="Prompt and generated tokens a minute together: reserved before, settled after."
    )
    concurrency: Count | None = Field(None, description="Requests under way at the same time.")
    burst: BurstConfig = Field(BurstConfig(), description="How much may come at once; by default one minute's quota.")
    budgets: BudgetsConfig = Field(BudgetsConfig(), description="What may be used in a day and in a month.")

    @model_validator(mode="after")
    def _burst_of_something(self) -> "QuotaConfig":
        for name in ("requests", "tokens"):
            if getattr(self.burst, name) is not None and getattr(self, f"{name}_per_minute") is None:
                raise ValueError(f"burst.{name} is of use together with {name}_per_minute only")
        return self

    def quota(self) -> Quota:
        """The same for the layers that do not know the configuration."""
        budgets = self.budgets
        return Quota(
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            requests_burst=self.burst.requests,
            tokens_burst=self.burst.tokens,
            concurrency=self.concurrency,
            tokens_per_day=budgets.tokens_per_day,
            tokens_per_month=budgets.tokens_per_month,
            cost_per_day=_micro(budgets.cost_per_day),
            cost_per_month=_micro(budgets.cost_per_month),
        )


def _micro(money: float | None) -> int | None:
    return None if money is None else max(1, round(money * MICRO))


class TierConfig(QuotaConfig):
    """A class of tenants. Each of them may use this much, for itself."""

    priority: Literal["low", "normal", "high"] = Field(
        "normal", description="Whose requests go first when there is a wait."
    )
    models: dict[str, QuotaConfig] = Field(
        default_factory=dict, description="What each tenant may use of single models, within the rest."
    )

    def tier(self, name: str) -> Tier:
        """The same for the layers that do not know the configuration."""
        models = {model: quota.quota() for model, quota in self.models.items()}
        return Tier(name, self.quota(), models or None, self.priority)


def built_in_tiers() -> dict[str, TierConfig]:
    """The tiers that are there unless the configuration has others of the same name."""
    return {
        "free": TierConfig(requests_per_minute=10, priority="low"),
        "paid": TierConfig(requests_per_minute=60),
        "enterprise": TierConfig(priority="high"),
    }
