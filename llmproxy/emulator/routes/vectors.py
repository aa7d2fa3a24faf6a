"""Routes of pooling models: embeddings, pooling, classify, score, rerank."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from llmproxy.emulator.body import Body, chat_ids, field, prompt_ids, read_json, text_of
from llmproxy.emulator.choice import Choice
from llmproxy.emulator.dialects.answer import Event, Job
from llmproxy.emulator.dialects.whole import WholeAnswer
from llmproxy.emulator.errors import ApiError
from llmproxy.emulator.faults import Plan
from llmproxy.emulator.reply import Reply
from llmproxy.emulator.routes.generate import request_id, run
from llmproxy.emulator.routes.handler import Routes
from llmproxy.emulator.site import Site
from llmproxy.emulator.tokens import Script, encode
from llmproxy.emulator.vectors import encoded, likeness, vector

_DIMENSIONS = 16
_DIMENSIONS_MAX = 4096
_LABELS = ("LABEL_0", "LABEL_1")


def _pool(
    site: Site,
    reply: Reply,
    plan: Plan,
    body: Body,
    prefix: str,
    prompts: Sequence[list[int]],
    render: Callable[[WholeAnswer], Event],
) -> None:
    model, limits = site.model(body.get("model")), site.limits
    made = []
    for index, ids in enumerate(prompts):
        if len(ids) > limits.max_model_len:
            raise ApiError(400, f"This model's maximum context length is {limits.max_model_len} tokens.", param="input")
        script = Script(ids, 0)
        ids = ids or encode("<|begin|>")
        made.append(Choice(index, ids, script, block_size=limits.block_size, natural_end=True, pace=plan.slow))
    job = Job(id=request_id(reply, prefix), model=model, created=int(time.time()), choices=made)
    run(site, reply, plan, WholeAnswer(job, render), stream=False)


def _listed(answer: WholeAnswer, data: list[Event], object_: str = "list") -> Event:
    usage = {key: value for key, value in answer.usage().items() if key != "prompt_tokens_details"}
    job = answer.job
    return {"id": job.id, "object": object_, "created": job.created, "model": job.model, "data": data, "usage": usage}


def _inputs(body: Body) -> list[list[int]]:
    if body.get("messages") is not None:
        return [chat_ids(field(body, "messages", list, []))]
    return prompt_ids(body.get("input"))


def embeddings(site: Site, reply: Reply, plan: Plan) -> None:
    _vectors(site, reply, plan, "embd-", "embedding", "embedding")


def pooling(site: Site, reply: Reply, plan: Plan) -> None:
    _vectors(site, reply, plan, "pool-", "pooling", "data")


def _vectors(site: Site, reply: Reply, plan: Plan, prefix: str, object_: str, key: str) -> None:
    body = read_json(reply.request)
    dimensions = field(body, "dimensions", int, _DIMENSIONS)
    if not 1 <= dimensions <= _DIMENSIONS_MAX:
        raise ApiError(400, f"dimensions must be from 1 to {_DIMENSIONS_MAX}", param="dimensions")
    encoding = field(body, "encoding_format", str, "float")

    def render(answer: WholeAnswer) -> Event:
        data = [
            {"index": place.index, "object": object_, key: encoded(vector(place.prompt_ids, dimensions), encoding)}
            for place in answer.job.choices
        ]
        return _listed(answer, data)

    _pool(site, reply, plan, body, prefix, _inputs(body), render)


def classify(site: Site, reply: Reply, plan: Plan) -> None:
    body = read_json(reply.request)

    def render(answer: WholeAnswer) -> Event:
        data = []
        for place in answer.job.choices:
            share = (vector(place.prompt_ids, 2)[0] + 1) / 2
            label = _LABELS[int(share > 0.5)]
            probs = [1 - share, share]
            data.append({"index": place.index, "label": label, "probs": probs, "num_classes": len(_LABELS)})
        return _listed(answer, data)

    _pool(site, reply, plan, body, "classify-", _inputs(body), render)


def score(site: Site, reply: Reply, plan: Plan) -> None:
    body = read_json(reply.request)
    lefts = _texts(body, "queries", "text_1", "data_1")
    rights = _texts(body, "documents", "text_2", "data_2")
    if len(lefts) == 1:
        lefts = lefts * len(rights)
    if len(lefts) != len(rights):
        raise ApiError(400, "Input lengths must be either 1:1, 1:N or N:N", param="text_2")
    pairs = [(encode(left), encode(right)) for left, right in zip(lefts, rights, strict=True)]

    def render(answer: WholeAnswer) -> Event:
        scores = [likeness(left, right) for left, right in pairs]
        return _listed(answer, [{"index": i, "object": "score", "score": value} for i, value in enumerate(scores)])

    _pool(site, reply, plan, body, "score-", [left + right for left, right in pairs], render)


def rerank(site: Site, reply: Reply, plan: Plan) -> None:
    body = read_json(reply.request)
    query, documents = _texts(body, "query")[0], _texts(body, "documents")
    asked = encode(query)
    top_n = field(body, "top_n", int, 0) or len(documents)

    def render(answer: WholeAnswer) -> Event:
        results = [
            {"index": index, "document": {"text": text}, "relevance_score": likeness(asked, encode(text))}
            for index, text in enumerate(documents)
        ]
        results.sort(key=lambda result: -float(str(result["relevance_score"])))
        usage = {"total_tokens": answer.usage()["total_tokens"]}
        return {"id": answer.job.id, "model": answer.job.model, "usage": usage, "results": results[:top_n]}

    _pool(site, reply, plan, body, "rerank-", [asked + encode(text) for text in documents], render)


def _texts(body: Body, *names: str) -> list[str]:
    """The first of these fields that is given, as a list of texts."""
    for name in names:
        value: Any = body.get(name)
        if isinstance(value, str):
            return [value]
        if isinstance(value, list) and value:
            return [item if isinstance(item, str) else text_of([item]) for item in value]
    raise ApiError(400, f"{names[0]}: Field required", type="Bad Request", param=names[0])


ROUTES: Routes = {
    ("POST", "/v1/embeddings"): embeddings,
    ("POST", "/pooling"): pooling,
    ("POST", "/classify"): classify,
    ("POST", "/score"): score,
    ("POST", "/v1/score"): score,
    ("POST", "/rerank"): rerank,
    ("POST", "/v1/rerank"): rerank,
    ("POST", "/v2/rerank"): rerank,
}
