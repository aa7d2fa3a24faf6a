"""The configuration in the words of the layers that may not know it."""

import secrets

from llmproxy.config.model import Config, LoggingConfig, PoolConfig
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
