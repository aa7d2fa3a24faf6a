"""`/v1/audio/transcriptions` and `/v1/audio/translations`: a multipart body in, a text as long as the file out."""

import time
from email.parser import BytesParser
from email.policy import HTTP

from llmproxy.emulator.body import choices
from llmproxy.emulator.dialects.answer import Event, Job
from llmproxy.emulator.dialects.whole import WholeAnswer
from llmproxy.emulator.errors import ApiError
from llmproxy.emulator.faults import Plan
from llmproxy.emulator.incoming import Incoming
from llmproxy.emulator.reply import Reply
from llmproxy.emulator.routes.generate import request_id, run
from llmproxy.emulator.routes.handler import Routes
from llmproxy.emulator.site import Site
from llmproxy.emulator.tokens import encode

_BYTES_PER_TOKEN = 1000
_TOKENS_MAX = 448


def transcribe(site: Site, reply: Reply, plan: Plan) -> None:
    form = _form(reply.request)
    named = form.get("model")
    model = site.model(None if named is None else named.decode("utf-8", "replace"))
    sound = form.get("file")
    if not sound:
        raise ApiError(400, "file: Field required", type="Bad Request", param="file")
    tokens = min(len(sound) // _BYTES_PER_TOKEN + 1, _TOKENS_MAX)
    prompt = encode(sound[: 4 * _TOKENS_MAX].decode("latin-1"))
    made = choices([prompt], {}, site.limits, tokens, plan.slow)
    job = Job(id=request_id(reply, "trsc-"), model=model, created=int(time.time()), choices=made)
    run(site, reply, plan, WholeAnswer(job, _render), stream=False)


def _render(answer: WholeAnswer) -> Event:
    return {"text": answer.job.choices[0].text, "usage": answer.usage()}


def _form(request: Incoming) -> dict[str, bytes]:
    """The fields of a multipart form. Raises ApiError."""
    kind = request.header("content-type") or ""
    if not kind.lower().startswith("multipart/form-data"):
        raise ApiError(400, "a multipart form is needed", type="Bad Request")
    head = f"content-type: {kind}\r\n\r\n".encode("latin-1")
    message = BytesParser(policy=HTTP).parsebytes(head + request.body)
    fields: dict[str, bytes] = {}
    for part in message.iter_parts():
        name, value = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(value, bytes):
            fields[name] = value
    return fields


ROUTES: Routes = {
    ("POST", "/v1/audio/transcriptions"): transcribe,
    ("POST", "/v1/audio/translations"): transcribe,
}
