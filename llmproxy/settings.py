"""The configuration in the words of the layers that may not know it."""

import secrets
from math import inf

from llmproxy.config.model import Config, LoggingConfig, PoolConfig
from llmproxy.core.condition import parse_condition
from llmproxy.policy.admission.deadline import Slo
from llmproxy.policy.admission.hedge import HedgeOptions
from llmproxy.policy.admission.lanes import Lane
from llmproxy.policy.admission.options import AdmissionOptions
from llmproxy.policy.admission.queue import Bounds
from llmproxy.policy.admission.saturation.adaptive import AdaptiveOptions
from llmproxy.policy.health.settings import HealthSettings
from llmproxy.wire.settings import ConnectionSettings


def connection_settings(config: Config) -> ConnectionSettings:
    """What bounds a client's connection."""
    timeouts, limits = config.server.timeouts, config.server.limits
    return ConnectionSettings(
        header_s=timeouts.header,
        body_s=timeouts.body,
        keepalive_s=timeouts.keepalive,
        write_s=timeouts.write,
        header_bytes=limits.header,
        request_line_bytes=limits.request_line,
    )


def health_settings(settings: PoolConfig) -> HealthSettings:
    """What a pool's `health` and `breaker` say."""
    health, breaker = settings.health, settings.breaker
    return HealthSettings(
        unhealthy_after=health.unhealthy_after,
        healthy_after=health.healthy_after,
        slow_start_s=health.slow_start,
        max_ejected_percent=health.max_ejected_percent,
        failures=breaker.failures,
        window_s=breaker.window,
        error_ratio=breaker.error_ratio,
        min_requests=breaker.min_requests,
        open_for_s=breaker.open_for,
        max_open_for_s=breaker.max_open_for,
    )


def prefix_secret(settings: LoggingConfig) -> bytes:
    """The key of the hashes of prompts in the access log; empty when there are none."""
    if settings.access == "off" or not settings.prefix_hashes:
        return b""
    return settings.prefix_salt.encode() or secrets.token_bytes(32)


def admission_options(settings: PoolConfig) -> AdmissionOptions:
    """What a pool's `queue` and `admission` say."""
    queue, admission = settings.queue, settings.admission
    slo, adaptive = admission.slo, admission.adaptive
    return AdmissionOptions(
        bounds=Bounds(
            waiting_max=queue.max,
            wait_s=queue.wait,
            bytes_max=queue.bytes,
            tenant_waiting_max=queue.tenant_max,
            tenant_bytes_max=queue.tenant_bytes,
            min_share=queue.min_share,
        ),
        backlog_s=admission.backlog,
        slo=Slo(slo.ttft or inf, slo.ttft_scaled, slo.tpot or inf),
        tenant_share=queue.tenant_share,
        lanes=tuple(Lane(lane.name, parse_condition(lane.when), lane.max_share) for lane in admission.lanes),
        adaptive=AdaptiveOptions(adaptive.min, adaptive.start, adaptive.max, adaptive.tolerance)
        if adaptive.enabled
        else None,
        hedge=HedgeOptions(settings.hedge.budget, settings.hedge.least),
    )
