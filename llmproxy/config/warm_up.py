"""`scaling.warm_up`: what a new replica computes before it serves."""

from typing import Any

from pydantic import Field, model_validator

from llmproxy.config.section import Section
from llmproxy.config.units import Duration
from llmproxy.config.values import ReadableFile


class WarmUpConfig(Section):
    file: ReadableFile | None = Field(
        None, description="JSON Lines of request bodies. A file's name in place of the section means the same."
    )
    hottest: int = Field(
        0,
        ge=0,
        le=32,
        description="So many of the beginnings that most prompts of late have in common, too. They are learned from "
        "chat and text completions, of 2 kB to 64 kB, and kept in this process's memory alone.",
    )
    within: Duration = Field(60.0, gt=0, description="After so long it serves, whatever is left to compute.")

    @model_validator(mode="before")
    @classmethod
    def _file_alone(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value
