"""The configuration as frozen, typed values. Each field's description is the manual: the reference page and the
JSON Schema are generated from it."""

import ipaddress
import ssl
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from llmproxy.config.admission import AdmissionConfig, HedgeConfig, QueueConfig
from llmproxy.config.auth import AuthConfig, KeyConfig
from llmproxy.config.backend import BackendConfig
from llmproxy.config.discovery import DiscoveryConfig
from llmproxy.config.limits import SharedLimitsConfig
from llmproxy.config.quota import TierConfig, built_in_tiers
from llmproxy.config.scaling import ScalingConfig, listed_backends
from llmproxy.config.section import Section
from llmproxy.config.units import KIB, MIB, Duration, Ratio, Size, format_size
from llmproxy.config.values import Name, Network, Origin, OutputFile, ReadableFile, RequestPath, file_context


class TlsConfig(Section):
    cert: ReadableFile = Field(description="PEM file with the certificate chain of the listener.")
    key: ReadableFile = Field(description="PEM file with its private key.")

    @model_validator(mode="after")
    def _fit_together(self, info: ValidationInfo) -> "TlsConfig":
        if file_context(info) is None:
            return self
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.cert, self.key, password="")
        except (OSError, ValueError) as error:
            # The second is what OpenSSL says of a key of another type.
            if getattr(error, "reason", None) in ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
                raise ValueError("the key does not belong to the certificate") from None
            raise ValueError("cert and key must be PEM files, and the key must have no passphrase") from None
        return self


class LimitsConfig(Section):
    body: Size = Field(32 * MIB, description="Largest request body read whole (JSON). Larger ones are answered 413.")
    multipart: Size = Field(25 * MIB, description="Largest multipart body read whole; larger ones stream through.")
    buffered: Size = Field(1024 * MIB, description="Cap on all buffered request bodies together; beyond it, 503.")
    header: Size = Field(64 * KIB, description="Largest request head (request line and headers); beyond it, 431.")
    request_line: Size = Field(16 * KIB, description="Longest request target; beyond it, 414.")
    connections: int = Field(20000, ge=1, description="Most client connections at once; further ones are refused.")

    @model_validator(mode="after")
    def _one_body_fits(self) -> "LimitsConfig":
        largest = max(self.body, self.multipart)
        if self.buffered < largest:
            raise ValueError(
                f"buffered ({format_size(self.buffered)}) is smaller than one largest body ({format_size(largest)})"
            )
        return self


class ServerTimeouts(Section):
    header: Duration = Field(10.0, description="Time for a client to send a request's head, from its first byte.")
    body: Duration = Field(60.0, description="Longest pause between two pieces of a client's request body.")
    keepalive: Duration = Field(75.0, description="How long an idle client connection is kept.")
    write: Duration = Field(60.0, description="Longest time a client may take nothing of a waiting answer.")


class CorsConfig(Section):
    origins: tuple[Origin, ...] = Field(
        (), description='Origins that browsers may call from, such as `https://chat.example.com`, or `"*"`.'
    )
    max_age: Duration = Field(600.0, description="How long a browser may remember the preflight answer.")


class ServerConfig(Section):
    host: str = Field("0.0.0.0", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    drain_timeout: Duration = Field(30.0, description="After SIGTERM, how long running streams may finish.")
    tls: TlsConfig | None = Field(None, description="Serve HTTPS with this certificate.")
    trusted_proxies: tuple[Network, ...] = Field(
        (), description="Networks (CIDR) whose X-Forwarded-* headers are believed; everyone else's are replaced."
    )
    allow_routes: tuple[RequestPath, ...] = Field(
        (), description="Engine-control paths to open to clients (denied by default), such as `/v1/load_lora_adapter`."
    )
    cors: CorsConfig = Field(CorsConfig(), description="Cross-origin access for browsers; off by default.")
    reveal_backend: bool = Field(True, description="Send `X-LLMProxy-Backend` (an id, never an address) to clients.")
    debug_headers: bool = Field(
        False,
        description="Tell anyone who asks with `X-LLMProxy-Debug: route` why a backend was chosen, in "
        "`X-LLMProxy-Route`. Whoever sends the admin token in `X-LLMProxy-Admin-Token` is always told.",
    )
    limits: LimitsConfig = Field(LimitsConfig(), description="Bounds on what a client may send.")
    timeouts: ServerTimeouts = Field(ServerTimeouts(), description="Bounds on how slow a client may be.")


class AdminTokenConfig(Section):
    name: Name = Field(description="Whose it is; stands in the audit log.")
    token: str = Field(min_length=8, repr=False, description="The bearer token.")
    role: Literal["viewer", "scaler", "admin"] = Field(
        "viewer", description="`viewer` looks; `scaler` also changes scaling and registers backends; `admin` does all."
    )


class AdminConfig(Section):
    host: str = Field("127.0.0.1", description="Address of the admin port (metrics, health, pools).")
    port: int = Field(8081, ge=0, le=65535, description="Port of the admin API; 0 picks a free one.")
    token: str = Field(
        "", repr=False, description="Bearer token for the admin API; required when it listens beyond loopback."
    )

    tokens: tuple[AdminTokenConfig, ...] = Field((), description="Further tokens, with a name and a role each.")
    audit: OutputFile | None = Field(
        None, description="File to append a line to for each change of scaling: who, what, why. Else only the log."
    )

    @model_validator(mode="after")
    def _token_when_wide(self) -> "AdminConfig":
        if not self.token and not self.tokens and not self.is_loopback:
            raise ValueError(f"host {self.host!r} is reachable from outside: set a token, or listen on 127.0.0.1")
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the admin port."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class PolicyConfig(Section):
    """`policy: NAME` or `policy: {name: NAME, ...options}`. The policy itself checks its options."""

    name: str = Field("least_connections", description="Name of the routing policy.")
    options: dict[str, Any] = Field(default_factory=dict, description="The policy's own options.")

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and "options" not in value:
            options = {key: item for key, item in value.items() if key != "name"}
            return {"name": value.get("name", "least_connections"), "options": options}
        return value


class HealthConfig(Section):
    path: str = Field("/health", pattern=r"^/[!-~]*$", description="Path probed on each backend; 200 is healthy.")
    interval: Duration = Field(10.0, gt=0, description="Time between two probes (jittered by 10 %).")
    timeout: Duration = Field(2.0, gt=0, description="Time a probe may take.")
    unhealthy_after: int = Field(3, ge=1, description="Failed probes in a row that take a backend out.")
    healthy_after: int = Field(2, ge=1, description="Good probes in a row that bring one back.")
    slow_start: Duration = Field(30.0, description="A recovered backend's share grows to full over this time.")
    check_sleep: bool = Field(True, description="Also read `vllm:engine_sleep_state`, so a sleeping engine is skipped.")
    max_ejected_percent: int = Field(50, ge=0, le=100, description="Most of the pool that passive health may eject.")


class SignalsConfig(Section):
    interval: Duration = Field(
        1.0, description="How often each backend's gauges are read (jittered by 10 %); 0 never does."
    )
    timeout: Duration = Field(0.5, gt=0, description="Time each read may take; below `interval`.")
    max_age: Duration = Field(5.0, gt=0, description="What was read longer ago is unknown; never zero, never the last.")
    path: str = Field(
        "/metrics",
        pattern=r"^/[!-~]*$",
        description="Where the engine shows its metrics (`/prometheus/metrics` for TensorRT-LLM's own server).",
    )

    @model_validator(mode="after")
    def _in_order(self) -> "SignalsConfig":
        if self.interval and self.timeout >= self.interval:
            raise ValueError("timeout must be shorter than interval")
        if self.max_age < self.interval:
            raise ValueError("max_age is shorter than interval: nothing would ever be known")
        return self


class ProgressConfig(Section):
    stalled_after: Duration = Field(
        60.0,
        description="An engine that has work is taken out when its token counters and all our streams there have stood "
        "still for this long, although its /health is fine. What a long prompt may take is added. 0 is off, as it is "
        "without `signals`.",
    )


class BreakerConfig(Section):
    failures: int = Field(5, ge=1, description="Failures within `window` that open the circuit.")
    window: Duration = Field(30.0, gt=0, description="The window for `failures` and `error_ratio`.")
    error_ratio: Ratio = Field(0.5, description="Share of failed requests in the window that opens it as well.")
    min_requests: int = Field(20, ge=1, description="Requests in the window before `error_ratio` counts.")
    open_for: Duration = Field(10.0, gt=0, description="First time out; doubles at each failed trial (jittered).")
    max_open_for: Duration = Field(120.0, gt=0, description="Longest time out.")

    @model_validator(mode="after")
    def _longest_is_longest(self) -> "BreakerConfig":
        if self.max_open_for < self.open_for:
            raise ValueError("max_open_for is shorter than open_for")
        return self


class PoolTimeouts(Section):
    connect: Duration = Field(5.0, description="Time to open a connection to a backend.")
    first_byte: Duration = Field(300.0, description="From sending a request to the first byte of its answer's body.")
    between_bytes: Duration = Field(120.0, description="Longest silence inside an answer; comments do not count.")
    total: Duration = Field(0.0, description="From arrival to the answer's end; 0 is no limit.")
    commit_after: Duration = Field(0.0, description="Release the held head after this long without a body; 0 never.")
    keepalive: Duration = Field(4.0, description="How long an idle backend connection is kept (vLLM closes at 5 s).")


class RetryConfig(Section):
    attempts: int = Field(3, ge=1, le=10, description="Most backends tried for one request.")
    budget: Ratio = Field(0.2, description="Share of live requests that may be retries at once.")
    budget_floor: int = Field(10, ge=0, description="Retries always allowed at once, however few requests are live.")
    after_crash: int = Field(1, ge=0, description="Retries of a request whose engine died under it.")


class PoolConfig(Section):
    policy: PolicyConfig = Field(PolicyConfig(), description="How a backend is chosen: a name, or a name with options.")
    scaling: ScalingConfig | None = Field(
        None, description="How many replicas there are, where the proxy may change it."
    )
    discovery: DiscoveryConfig = Field(
        DiscoveryConfig(), description="Backends that come and go without a reload, beside those in `backends`."
    )
    backends: tuple[BackendConfig, ...] = Field(
        (),
        description="The servers: URLs, or URLs with options. Required, unless `scaling` starts them or `discovery` "
        "finds them.",
    )
    upstream_key: str = Field("", repr=False, description="API key sent to the backends instead of the client's.")
    forward_authorization: bool = Field(
        False,
        description="Send the client's key on to the backends although it is checked here. Where none is checked, it "
        "always travels on, unless there is an `upstream_key`.",
    )
    inject_usage: bool = Field(
        False, description="Ask engines for `usage` in streams even if the client did not, and hide the extra chunk."
    )
    health: HealthConfig = Field(HealthConfig(), description="Active probing.")
    breaker: BreakerConfig = Field(BreakerConfig(), description="Passive health: the circuit breaker.")
    signals: SignalsConfig = Field(
        SignalsConfig(), description="Reading what the engines and their GPUs say of themselves."
    )
    progress: ProgressConfig = Field(ProgressConfig(), description="Health by progress: engines that hang.")
    timeouts: PoolTimeouts = Field(PoolTimeouts(), description="How long the backends may take.")
    retry: RetryConfig = Field(RetryConfig(), description="When a request is tried again elsewhere.")
    queue: QueueConfig = Field(QueueConfig(), description="The wait for a place: how long, and who goes first.")
    admission: AdmissionConfig = Field(
        AdmissionConfig(), description="When a backend may be given more, and what is not worth starting."
    )
    hedge: HedgeConfig = Field(HedgeConfig(), description="A second attempt for what is unusually late.")

    @field_validator("backends", mode="before")
    @classmethod
    def _somebody_serves(cls, value: Any, info: ValidationInfo) -> Any:
        return listed_backends(value, info)


class ModelConfig(Section):
    pool: str = Field(description="The pool that serves it.")
    rewrite: str | None = Field(None, min_length=1, description="The name the backend knows it by, when that differs.")


class RouteConfig(Section):
    path: RequestPath = Field(description="Path prefix; `/` is for what nothing else claims.")
    pool: str = Field(description="The pool that serves it.")


class LoggingConfig(Section):
    access: Literal["json", "off"] = Field("json", description="One JSON line for each request, or none.")
    file: OutputFile | None = Field(None, description="File for the access log; standard output when absent.")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Level of the proxy's own log.")
    prefix_hashes: bool = Field(
        False,
        description="Add keyed hashes of each prompt's blocks of 2 KB to the access log, never text, so that "
        "`llmproxy simulate` can replay which prompts begin alike.",
    )
    prefix_salt: str = Field(
        "",
        repr=False,
        description="The key of those hashes, a secret: proxies that share it write the same ones. Without it each "
        "start of the process has a key of its own.",
    )

    @model_validator(mode="after")
    def _salt_cannot_be_guessed(self) -> "LoggingConfig":
        if 0 < len(self.prefix_salt) < 16:
            raise ValueError("prefix_salt needs 16 characters or more: who guesses it can test what prompts said")
        return self


class Config(Section):
    """The whole file."""

    server: ServerConfig = Field(ServerConfig(), description="The public port.")
    admin: AdminConfig = Field(AdminConfig(), description="The admin port.")
    pools: dict[Name, PoolConfig] = Field(min_length=1, description="Groups of backends that serve the same models.")
    models: dict[str, ModelConfig] = Field(
        default_factory=dict,
        description="Name clients use -> pool. With one pool and no models, every name goes to that pool.",
    )
    routes: tuple[RouteConfig, ...] = Field((), description="Path prefixes -> pool; the longest match wins.")
    keys: tuple[KeyConfig, ...] = Field((), description="Keys of clients. With any, a key is required.")
    tiers: dict[Name, TierConfig] = Field(
        default_factory=dict, description="What tenants may use, by class. A tenant's tier is that of its key."
    )
    limits: SharedLimitsConfig = Field(SharedLimitsConfig(), description="Where limits are counted.")
    auth: AuthConfig = Field(AuthConfig(), description="Who may ask, beyond `keys`: keys in Redis, tokens (JWT).")
    logging: LoggingConfig = Field(LoggingConfig(), description="The access log and the proxy's own log.")

    @property
    def all_tiers(self) -> dict[str, TierConfig]:
        """The built-in tiers, and those of the file in their place or beside them."""
        return {**built_in_tiers(), **self.tiers}

    @property
    def checks_keys(self) -> bool:
        """Whether clients are asked for a key."""
        return bool(self.keys or self.auth.store or self.auth.jwt is not None)
