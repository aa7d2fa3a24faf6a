"""`/v1/responses`: made, stored, asked for again, cancelled."""

import secrets
from typing import Any

from llmproxy.emulator.body import chat_ids, choices, field, read_json
from llmproxy.emulator.dialects.responses import ResponsesAnswer
from llmproxy.emulator.errors import ApiError
from llmproxy.emulator.faults import Plan
from llmproxy.emulator.generation import Generation
from llmproxy.emulator.reply import Reply
from llmproxy.emulator.routes.generate import make_job, whole_or_none
from llmproxy.emulator.routes.handler import Routes
from llmproxy.emulator.site import STORED_MAX, Site, Work

PREFIX = "/v1/responses/"


def create(site: Site, reply: Reply, plan: Plan) -> None:
    body = read_json(reply.request)
    site.model(body.get("model"))
    stream, background = field(body, "stream", bool, False), field(body, "background", bool, False)
    store = field(body, "store", bool, True)
    if background and not store:
        raise ApiError(400, "background can only be used when `store` is true", param="background")
    conversation = _conversation(site, body.get("input"), body.get("instructions"), body.get("previous_response_id"))
    asked = {"cache_salt": body.get("cache_salt")}
    made = choices([chat_ids(conversation)], asked, site.limits, whole_or_none(body, "max_output_tokens"), plan.slow)
    job = make_job(site, {"model": body.get("model")}, f"resp_{secrets.token_hex(16)}", made)
    answer = ResponsesAnswer(job, background=background, store=store)
    site.check_room()
    listening = None if background and not stream else reply
    generation = Generation(site, listening, answer, made, plan, stream=stream)
    if store:
        _store(site, job.id, generation)
    generation.start()
    if listening is None:
        reply.json(200, answer.whole() | {"status": "queued"})


def retrieve(site: Site, reply: Reply, plan: Plan) -> None:
    reply.json(200, _stored(site, reply.request.path.removeprefix(PREFIX)).answer.whole())


def cancel(site: Site, reply: Reply, plan: Plan) -> None:
    generation = _stored(site, reply.request.path.removeprefix(PREFIX).removesuffix("/cancel"))
    answer = generation.answer.whole()
    if not answer["background"]:
        raise ApiError(400, "Cannot cancel a synchronous response.", type="invalid_request_error", param="response_id")
    generation.cancel()
    reply.json(200, generation.answer.whole())


def _conversation(site: Site, asked: Any, instructions: Any, previous: Any) -> list[Any]:
    conversation: list[Any] = []
    if previous is not None:
        conversation.append({"role": "user", "content": str(_stored(site, str(previous)).answer.whole()["output"])})
    if isinstance(instructions, str):
        conversation.insert(0, {"role": "system", "content": instructions})
    if isinstance(asked, str):
        conversation.append({"role": "user", "content": asked})
    elif isinstance(asked, list):
        conversation += [item for item in asked if isinstance(item, dict) and "role" in item]
    else:
        raise ApiError(400, "input: a string or a list of items is needed", type="Bad Request", param="input")
    return conversation


def _store(site: Site, id_: str, generation: Generation) -> None:
    site.stored[id_] = generation
    while len(site.stored) > STORED_MAX:
        site.stored.popitem(last=False)


def _stored(site: Site, id_: str) -> Work:
    generation = site.stored.get(id_)
    if generation is None:
        message = f"Response with id '{id_}' not found."
        raise ApiError(404, message, type="invalid_request_error", param="response_id")
    return generation


ROUTES: Routes = {
    ("POST", "/v1/responses"): create,
    ("GET", PREFIX + "{id}"): retrieve,
    ("POST", PREFIX + "{id}/cancel"): cancel,
}
