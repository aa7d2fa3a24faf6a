"""A backend in the configuration: a URL, or a URL with options; turned into the frozen `BackendSpec`."""

import hashlib
import re
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from llmproxy.config.gpu import GpuConfig
from llmproxy.config.section import Section
from llmproxy.config.values import AuthoritiesFile, Name
from llmproxy.core.backend import BackendSpec


class BackendConfig(Section):
    """One server. `"http://10.0.1.11:8000"` is short for `{url: "http://10.0.1.11:8000"}`."""

    url: str = Field(description="`http://host:port` or `https://host:port`, with an optional base path.")
    id: Name | None = Field(
        None,
        description="Label in logs, metrics and headers; by default the pool's name and a digest of the URL.",
    )
    weight: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="Share of the traffic, relative to the pool's other backends."
    )
    max_concurrency: int | None = Field(None, ge=1, description="Most requests in flight there; none is no limit.")
    price_per_hour: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="What it costs in an hour, for cost metrics and `GET /admin/costs`."
    )
    spot: bool = Field(False, description="Rented at a spot price: costs tell it apart from what is on demand.")
    ca: AuthoritiesFile | None = Field(None, description="PEM file to verify an https:// backend with.")
    resolve: bool = Field(
        False, description="Make every address of the host name a backend of its own, kept up to date from DNS."
    )
    gpu: GpuConfig | None = Field(
        None, description="The GPU it runs on, for policies that look at GPUs; of several, one of them."
    )

    @model_validator(mode="before")
    @classmethod
    def _url_alone(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value

    @field_validator("url")
    @classmethod
    def _usable_url(cls, value: str) -> str:
        if "@" in value or "?" in value or "#" in value:
            raise ValueError("a backend's url is scheme, host, port and path only (use upstream_key for a key)")
        if not re.fullmatch(r"[!-~]*", value):
            raise ValueError(f"{value!r} holds a space, a control character or a letter beyond ASCII")
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https"):
            raise ValueError(f"{value!r} must start with http:// or https://")
        if not parts.hostname:
            raise ValueError(f"{value!r} has no host")
        _check_port(value, parts.netloc)
        return value.rstrip("/")

    @model_validator(mode="after")
    def _ca_needs_tls(self) -> "BackendConfig":
        if self.ca is not None and not self.url.startswith("https:"):
            raise ValueError("ca is of use for an https:// url only")
        return self

    @model_validator(mode="after")
    def _one_gpu_is_one_backends(self) -> "BackendConfig":
        if self.gpu is not None and self.resolve:
            raise ValueError("with resolve, gpu cannot say which of the backends it belongs to")
        return self

    def spec(self, pool: str) -> BackendSpec:
        """The frozen description of this backend as a member of `pool`."""
        parts = urlsplit(self.url)
        tls = parts.scheme == "https"
        return BackendSpec(
            id=self.id or f"{pool}-{hashlib.sha256(self.url.encode()).hexdigest()[:6]}",
            url=self.url,
            weight=self.weight,
            max_concurrency=self.max_concurrency,
            host=parts.hostname or "",
            port=parts.port or (443 if tls else 80),
            tls=tls,
            base_path=parts.path.rstrip("/"),
            ca_file=self.ca,
            gpu=None if self.gpu is None else self.gpu.spec(),
            price_per_hour=self.price_per_hour,
            spot=self.spot,
        )


def _check_port(url: str, netloc: str) -> None:
    """urlsplit takes "http://h:" and "http://h:0" for urls; nothing can be reached there."""
    port = re.search(r":([^\]:]*)$", netloc)
    if port is not None and not (port[1].isdecimal() and 0 < int(port[1][:6]) <= 65535):
        raise ValueError(f"{url!r} has no usable port")
