"""Routes that need no engine step: models, tokenize, detokenize."""

from llmproxy.emulator.body import chat_ids, field, prompt_ids, read_json
from llmproxy.emulator.errors import ApiError
from llmproxy.emulator.faults import Plan
from llmproxy.emulator.reply import Reply
from llmproxy.emulator.routes.handler import Routes
from llmproxy.emulator.site import Site
from llmproxy.emulator.tokens import ID_MAX, decode


def models(site: Site, reply: Reply, plan: Plan) -> None:
    cards: list[dict[str, object]] = [
        {
            "id": model,
            "object": "model",
            "created": site.started_at,
            "owned_by": "vllm",
            "root": model,
            "parent": None,
            "max_model_len": site.limits.max_model_len,
            "permission": [],
        }
        for model in site.options.models
    ]
    reply.json(200, {"object": "list", "data": cards})


def tokenize(site: Site, reply: Reply, plan: Plan) -> None:
    body = read_json(reply.request)
    site.model(body.get("model"))
    if body.get("messages") is not None:
        ids = chat_ids(field(body, "messages", list, []))
    else:
        ids = prompt_ids(field(body, "prompt", str, ""))[0]
    limit = site.limits.max_model_len
    reply.json(200, {"count": len(ids), "max_model_len": limit, "tokens": ids, "token_strs": None})


def detokenize(site: Site, reply: Reply, plan: Plan) -> None:
    body = read_json(reply.request)
    site.model(body.get("model"))
    ids = field(body, "tokens", list, [])
    if not all(isinstance(item, int) and 0 <= item <= ID_MAX for item in ids):
        raise ApiError(400, "tokens: Input should be a list of token ids", type="Bad Request", param="tokens")
    reply.json(200, {"prompt": decode(ids)})


ROUTES: Routes = {
    ("GET", "/v1/models"): models,
    ("POST", "/tokenize"): tokenize,
    ("POST", "/detokenize"): detokenize,
}
