"""`pools.NAME.discovery`: where backends come from that the configuration does not list."""

from pydantic import Field

from llmproxy.config.section import Section
from llmproxy.config.values import OutputFile


class DiscoveryConfig(Section):
    file: OutputFile | None = Field(
        None,
        description="A watched file with a list of backends, as under `backends` (YAML or JSON). It may come later.",
    )
