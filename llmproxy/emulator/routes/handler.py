"""What a route is."""

from collections.abc import Callable, Mapping

from llmproxy.emulator.faults import Plan
from llmproxy.emulator.reply import Reply
from llmproxy.emulator.site import Site

Handler = Callable[[Site, Reply, Plan], None]
Routes = Mapping[tuple[str, str], Handler]
"""(method, path) to handler."""
