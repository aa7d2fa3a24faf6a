"""`/inference/v1/generate`: token ids in, token ids out, never streamed here."""

import time

from llmproxy.emulator.body import choices, field, prompt_ids, read_json
from llmproxy.emulator.dialects.answer import Event, Job
from llmproxy.emulator.dialects.whole import WholeAnswer
from llmproxy.emulator.errors import ApiError
from llmproxy.emulator.faults import Plan
from llmproxy.emulator.reply import Reply
from llmproxy.emulator.routes.generate import request_id, run, whole_or_none
from llmproxy.emulator.routes.handler import Routes
from llmproxy.emulator.site import Site


def generate(site: Site, reply: Reply, plan: Plan) -> None:
    body = read_json(reply.request)
    model = site.model(body.get("model"))
    ids = field(body, "token_ids", list, [])
    if not ids:
        raise ApiError(400, "token_ids: Field required", type="Bad Request", param="token_ids")
    sampling = field(body, "sampling_params", dict, {})
    made = choices(prompt_ids(ids), sampling, site.limits, whole_or_none(sampling, "max_tokens"), plan.slow)
    job = Job(id=request_id(reply, ""), model=model, created=int(time.time()), choices=made)
    run(site, reply, plan, WholeAnswer(job, _render), stream=False)


def _render(answer: WholeAnswer) -> Event:
    parts = [
        {"index": choice.index, "token_ids": choice.ids, "logprobs": None, "finish_reason": choice.finish_reason}
        for choice in answer.job.choices
    ]
    return {"request_id": answer.job.id, "choices": parts}


ROUTES: Routes = {("POST", "/inference/v1/generate"): generate}
