"""A request as decisions see it: no sockets, no bytes to copy."""

from collections.abc import Callable, Sequence

from llmproxy.core.prompt import NO_PROMPT, Prompt, TokenCounts

Headers = Sequence[tuple[bytes, bytes]]


def _no_field(name: str) -> str | None:
    return None


def _no_prompt() -> Prompt:
    return NO_PROMPT


class Request:
    """One client request. `field` looks a top-level JSON body field up (strings and numbers, as text). `prompt` is made
    when a policy first asks for it, `tokens` when the engine has told them. `note` is the routing policy's own,
    which alone reads and writes it; `reason` is its word for why it chose as it did, for the count of decisions."""

    __slots__ = (
        "_make_prompt",
        "_prompt",
        "arrived",
        "body_bytes",
        "client_ip",
        "field",
        "headers",
        "id",
        "method",
        "model",
        "note",
        "path",
        "reason",
        "stream",
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
        self.tokens: TokenCounts | None = None
        self.note: object = None
        self.reason = ""

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
