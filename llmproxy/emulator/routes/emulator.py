"""`/emulator/...`: what only an emulated server has. No fault and no API key applies here."""

from llmproxy.emulator.body import field, read_json
from llmproxy.emulator.errors import ApiError
from llmproxy.emulator.faults import FaultError, Plan
from llmproxy.emulator.reply import Reply
from llmproxy.emulator.routes.handler import Routes
from llmproxy.emulator.site import Site

PREFIX = "/emulator/"


def fault(site: Site, reply: Reply, plan: Plan) -> None:
    """`{"spec": SPEC}` replaces the standing faults; an empty one clears them."""
    body = read_json(reply.request)
    if "spec" not in body:
        raise ApiError(400, 'spec: Field required, such as {"spec": "status=503"} or {"spec": ""}', param="spec")
    spec = field(body, "spec", str, "")
    try:
        site.set_fault(spec)
    except FaultError as error:
        raise ApiError(400, str(error), param="spec") from None
    reply.json(200, {"spec": site.faults.spec})


def state(site: Site, reply: Reply, plan: Plan) -> None:
    reply.json(200, site.state())


ROUTES: Routes = {("POST", PREFIX + "fault"): fault, ("GET", PREFIX + "state"): state}
