"""A request as decisions see it: no sockets, no bytes to copy."""

from collections.abc import Callable, Sequence

from llmproxy.core.identity import Identity, anonymous
from llmproxy.core.prompt import NO_PROMPT, Prompt, TokenCounts

NORMAL = 1
Headers = Sequence[tuple[bytes, bytes]]


def _no_field(name: str) -> str | None:
    return None


def _no_prompt() -> Prompt:
    return NO_PROMPT


class Request:
    """One client request. `field` looks a top-level JSON body field up (strings and numbers, as text). `prompt` is made
    when a policy first asks for it, `tokens` when the engine has told them. `note` is the routing policy's own,
    which alone reads and writes it; `reason` is its word for why it chose as it did, for the count of decisions.
    `identity` is who asks, None where nobody was asked for a key. `priority`: 0 high, 1 normal, 2 low, 3 batch.
    `share`: how much service its tenant is to get beside others of that priority. `ticket` is admission's own."""

    __slots__ = (
        "_make_prompt",
        "_prompt",
        "arrived",
        "body_bytes",
        "client_ip",
        "field",
        "headers",
        "id",
        "identity",
        "method",
        "model",
        "note",
        "path",
        "priority",
        "reason",
        "share",
        "stream",
        "ticket",
        "tokens",
    )

    def __init__(
        self,
        *,
        id: str = "",
        method: str = "POST",
        path: str = "/v1/chat/completions",
        model: str | None = None,
        stream: bool = False,
        client_ip: str = "",
        headers: Headers = (),
        body_bytes: int = 0,
        arrived: float = 0.0,
        field: Callable[[str], str | None] = _no_field,
        prompt: Callable[[], Prompt] = _no_prompt,
        identity: Identity | None = None,
        priority: int = NORMAL,
    ) -> None:
        self.id = id
        self.method = method
        self.path = path
        self.model = model
        self.stream = stream
        self.client_ip = client_ip
        self.headers = headers
        self.body_bytes = body_bytes
        self.arrived = arrived
        self.field = field
        self._make_prompt = prompt
        self._prompt: Prompt | None = None
        self.identity = identity
        self.tokens: TokenCounts | None = None
        self.note: object = None
        self.reason = ""
        self.priority = priority
        self.share = 1.0
        self.ticket: object = None

    @property
    def tenant(self) -> str:
        """Whose request it is; of requests without an identity, their address's."""
        identity = self.identity
        return identity.tenant if identity is not None else anonymous(self.client_ip).tenant

    @property
    def tier(self) -> str:
        """The tier of its key; empty where there is none."""
        return self.identity.tier if self.identity is not None else ""

    @property
    def prompt(self) -> Prompt:
        """Its size and its blocks."""
        prompt = self._prompt
        if prompt is None:
            prompt = self._prompt = self._make_prompt()
        return prompt

    def header(self, name: str) -> str | None:
        """The first value of header `name` (any case), or None."""
        wanted = name.lower().encode("latin-1")
        for key, value in self.headers:
            if len(key) == len(wanted) and key.lower() == wanted:
                return value.strip().decode("latin-1")
        return None

    def cookie(self, name: str) -> str | None:
        """The value of cookie `name`, or None."""
        for part in (self.header("cookie") or "").split(";"):
            key, _, value = part.strip().partition("=")
            if key == name:
                return value
        return None
