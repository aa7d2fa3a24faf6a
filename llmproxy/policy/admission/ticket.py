"""A request's place in the queue, and the words for why one is not let in."""

from enum import Enum, IntEnum
from math import inf
from typing import Generic, TypeVar

from llmproxy.core.backend import Backend

W = TypeVar("W")


class Band(IntEnum):
    """Priority. A better band is served first, all but the least share of the others (`Bands`)."""

    HIGH = 0
    NORMAL = 1
    LOW = 2
    BATCH = 3


class Reason(Enum):
    """Why a request is shed. The value is the label, and the error's code where clients see it."""

    FULL = "queue_full"
    """As many wait as may."""
    BYTES = "queue_bytes"
    """Their bodies are as large as they may be together."""
    TENANT = "tenant_queue_full"
    """So many of this tenant wait already."""
    WAIT = "queue_timeout"
    """It waited as long as may be."""
    DEADLINE = "deadline"
    """Its first token would come too late."""


class Ticket(Generic[W]):
    """What admission knows of a request, from its arrival to its end. `owner` is whatever the driver waits with.

    `deadline`: when its first token is due (monotonic seconds). `prefill_s`: what its prompt is expected to take.
    `tokens`: of its prompt. `charged`: weighted tokens its tenant was charged when it was served. `ends_at` is the
    queue's: when its wait is over. `backend`, `sent_at` and `first_at` (0: not yet) are those of its attempt.
    """

    __slots__ = (
        "backend",
        "band",
        "bytes",
        "charged",
        "computed",
        "deadline",
        "ends_at",
        "entered",
        "first_at",
        "lane",
        "owner",
        "prefill_s",
        "restricted",
        "sent_at",
        "sequence",
        "shares",
        "starting",
        "tenant",
        "tokens",
        "waiting",
        "weight",
    )

    def __init__(
        self,
        owner: W | None = None,
        *,
        tenant: str = "",
        band: Band = Band.NORMAL,
        weight: float = 1.0,
        tokens: float = 0.0,
        bytes: int = 0,
        deadline: float = inf,
        prefill_s: float = 0.0,
        lane: int = 0,
        restricted: bool = False,
    ) -> None:
        """`restricted`: it may not go to every backend, so others need not wait behind it."""
        self.owner = owner
        self.tenant = tenant
        self.band = band
        self.weight = weight
        self.tokens = tokens
        self.bytes = bytes
        self.deadline = deadline
        self.prefill_s = prefill_s
        self.lane = lane
        self.restricted = restricted
        self.charged = 0.0
        self.entered = 0.0
        self.ends_at = inf
        self.sequence = 0
        self.waiting = False
        self.backend: Backend | None = None
        self.sent_at = 0.0
        self.first_at = 0.0
        self.starting = False
        """On its way there, not yet sent."""
        self.shares = False
        """It is counted among its tenant's prompts."""
        self.computed = False
        """Its prompt is, or it is over."""
