"""Who asks: what a verified key says of its holder. A value; nothing here knows how it was verified."""

from llmproxy.core.limits import Quota

IPV6_SITE_GROUPS = 4
"""Of an IPv6 address's eight groups: a client can pick any address of its /64, so that counts as one."""


class Identity:
    """The holder of a key. `models` are the names it may use (None: all; a trailing `*` stands for any rest). `limits`
    are this key's own, beside its tenant's. `priority` overrides the tier's. `expires_at` is
    Unix seconds. Names are safe to log: short, printable, never the key. `anonymous` has no key and was let in anyway.
    """

    __slots__ = ("anonymous", "expires_at", "key_name", "limits", "models", "priority", "tenant", "tier")

    def __init__(
        self,
        tenant: str,
        tier: str = "",
        key_name: str = "",
        models: tuple[str, ...] | None = None,
        limits: Quota | None = None,
        priority: str | None = None,
        expires_at: float | None = None,
        anonymous: bool = False,
    ) -> None:
        self.tenant = tenant
        self.tier = tier
        self.key_name = key_name
        self.models = models
        self.limits = limits
        self.priority = priority
        self.expires_at = expires_at
        self.anonymous = anonymous

    def allows(self, model: str) -> bool:
        """Whether the key may be used for `model`, the name that the client gave."""
        if self.models is None:
            return True
        return any(name == model or (name.endswith("*") and model.startswith(name[:-1])) for name in self.models)

    def __repr__(self) -> str:
        return f"<Identity {self.tenant}/{self.key_name} tier={self.tier}>"


def anonymous(ip: str, tier: str = "") -> Identity:
    """Somebody without a key: each address is a tenant of its own."""
    return Identity(f"ip:{_site(ip)}", tier, anonymous=True)


def _site(ip: str) -> str:
    """`ip` as a tenant: an IPv6 address's /64, a mapped IPv4 address as itself, anything else as it is, cut short."""
    if ":" not in ip:
        return ip[:64]
    ip = ip.partition("%")[0]
    if "." in ip:
        return ip.rpartition(":")[2][:64]
    before, gap, after = ip.partition("::")
    head = before.split(":") if before else []
    tail = after.split(":") if after else []
    groups = head + ["0"] * (8 - len(head) - len(tail)) + tail if gap else head
    return ":".join(group.lower().lstrip("0") or "0" for group in groups[:IPV6_SITE_GROUPS])[:64] + "::/64"
