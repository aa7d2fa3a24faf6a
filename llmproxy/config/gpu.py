"""Which GPU a backend runs on, and who reads it."""

from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from llmproxy.config.section import Section
from llmproxy.core.backend import GpuSpec


class GpuConfig(Section):
    """`{device: 0}` or `{uuid: GPU-...}`: a GPU of this host, unless `agent` or `dcgm` says who knows of it."""

    device: int | None = Field(
        None, ge=0, le=1023, description="Its number, as nvidia-smi counts on its host (not CUDA_VISIBLE_DEVICES)."
    )
    uuid: str = Field(
        "",
        pattern=r"^((GPU|MIG)-[A-Za-z0-9/-]{1,80})?$",
        description="Its UUID instead (`nvidia-smi -L`); through NVML and the agent a MIG instance's too.",
    )
    agent: str = Field("", description="`http://node:9401`: read it from a `llmproxy gpu-agent` on its host.")
    dcgm: str = Field(
        "",
        description="`http://node:9400/metrics`: read it from a DCGM exporter (which itself looks every 30 s, unless "
        "told otherwise with `-c`).",
    )

    @field_validator("agent", "dcgm")
    @classmethod
    def _usable_url(cls, value: str) -> str:
        if not value:
            return value
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in value:
            raise ValueError(f"{value!r} is not a URL such as http://node:9401")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _one_of_each(self) -> "GpuConfig":
        if (self.device is None) == (not self.uuid):
            raise ValueError("say which GPU it is, with device or with uuid")
        if self.agent and self.dcgm:
            raise ValueError("read it from agent or from dcgm, not from both")
        return self

    def spec(self) -> GpuSpec:
        """The same for the layers that do not know the configuration."""
        return GpuSpec(device=self.device, uuid=self.uuid, agent=self.agent, dcgm=self.dcgm)
