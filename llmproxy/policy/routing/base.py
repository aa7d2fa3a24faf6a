"""What policies that learn nothing from the requests they placed have in common."""

from typing import ClassVar

from llmproxy.core.backend import Backend
from llmproxy.core.ports import Moment
from llmproxy.core.request import Request


class Unlearning:
    """Takes note of nothing. A policy that keeps something per backend overrides `forget`."""

    __slots__ = ()
    learns: ClassVar = False

    def observe(self, moment: Moment, backend: Backend, request: Request, now: float) -> None:
        """Nothing to learn."""

    def forget(self, backend: Backend) -> None:
        """Nothing is kept."""
