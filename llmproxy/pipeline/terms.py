"""The configuration in the form that requests read it: plain attributes, looked up for every request."""

from math import inf

from llmproxy.config.model import PoolConfig, ServerConfig
from llmproxy.policy.retry.rules import Rules


class Terms:
    """A pool's terms for its requests. Times in seconds, 0 for no limit."""

    __slots__ = (
        "answer_s",
        "authorization",
        "between_bytes_s",
        "commit_after_s",
        "connect_s",
        "first_byte_s",
        "heartbeat_s",
        "hedges",
        "inject_usage",
        "keepalive_s",
        "learns_prompts",
        "rules",
        "tiers",
        "total_s",
        "withholds_keys",
    )

    def __init__(self, settings: PoolConfig, checks_keys: bool) -> None:
        timeouts = settings.timeouts
        self.connect_s = timeouts.connect
        self.first_byte_s = timeouts.first_byte
        self.between_bytes_s = timeouts.between_bytes
        self.total_s = timeouts.total
        self.commit_after_s = timeouts.commit_after
        self.keepalive_s = timeouts.keepalive
        self.heartbeat_s = settings.queue.heartbeat
        self.hedges = settings.hedge.budget > 0
        # When to look first at a request that waits for its answer.
        self.answer_s = min(self.commit_after_s or self.first_byte_s, self.first_byte_s or self.commit_after_s)
        self.authorization = b"Bearer " + settings.upstream_key.encode() if settings.upstream_key else None
        # A key that was checked here is nobody else's business; one of ours takes the place of all of the client's.
        self.withholds_keys = bool(settings.upstream_key) or (checks_keys and not settings.forward_authorization)
        self.inject_usage = settings.inject_usage
        self.tiers = _tiers(settings)
        self.learns_prompts = settings.scaling is not None and settings.scaling.warm_up.hottest > 0
        self.rules = Rules(settings.retry.attempts, settings.retry.after_crash)


def _tiers(settings: PoolConfig) -> tuple[tuple[str, float], ...]:
    """Names and longest prompts of the tiers of capacity; none where all take all."""
    tiers = settings.scaling.tiers_of_capacity if settings.scaling is not None else ()
    found = tuple((one.name, inf if one.prompt_tokens_max is None else float(one.prompt_tokens_max)) for one in tiers)
    return found if found and found[0][1] != inf else ()


class Bounds:
    """What the public port takes and says."""

    __slots__ = (
        "body_max_bytes",
        "buffered_max_bytes",
        "debug_headers",
        "has_cors",
        "multipart_max_bytes",
        "reveal_backend",
    )

    def __init__(self, server: ServerConfig) -> None:
        self.body_max_bytes = server.limits.body
        self.multipart_max_bytes = server.limits.multipart
        self.buffered_max_bytes = server.limits.buffered
        self.has_cors = bool(server.cors.origins)
        self.reveal_backend = server.reveal_backend
        self.debug_headers = server.debug_headers
