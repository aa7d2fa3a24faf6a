"""Routes that write text: chat, completions, messages."""

import secrets
import time
from collections.abc import Sequence

from llmproxy.emulator.body import Body, chat_ids, choices, field, prompt_ids, read_json
from llmproxy.emulator.choice import Choice
from llmproxy.emulator.dialects.answer import Answer, Job
from llmproxy.emulator.dialects.chat import ChatAnswer
from llmproxy.emulator.dialects.completions import CompletionsAnswer
from llmproxy.emulator.dialects.messages import MessagesAnswer
from llmproxy.emulator.errors import ApiError
from llmproxy.emulator.faults import Plan
from llmproxy.emulator.generation import Generation
from llmproxy.emulator.reply import Reply
from llmproxy.emulator.routes.handler import Routes
from llmproxy.emulator.site import Site

_COMPLETION_TOKENS = 16
"""What a completion that sets no `max_tokens` is limited to, in OpenAI's API as in vLLM."""


def request_id(reply: Reply, prefix: str) -> str:
    """The answer's id: the request's own id after the prefix, or one made here."""
    return prefix + (reply.request.header("x-request-id") or secrets.token_hex(16))


def make_job(site: Site, body: Body, id_: str, made: Sequence[Choice]) -> Job:
    options = field(body, "stream_options", dict, {})
    continuous = bool(options.get("continuous_usage_stats"))
    return Job(
        id=id_,
        model=site.model(body.get("model")),
        created=int(time.time()),
        choices=made,
        include_usage=bool(options.get("include_usage")),
        continuous_usage=continuous and bool(options.get("include_usage")),
        token_ids=field(body, "return_token_ids", bool, False),
    )


def run(site: Site, reply: Reply, plan: Plan, answer: Answer, *, stream: bool) -> None:
    """Put an answer to work. Raises ApiError when the engine takes no more."""
    site.check_room()
    Generation(site, reply, answer, answer.job.choices, plan, stream=stream).start()


def whole_or_none(body: Body, *names: str) -> int | None:
    """The first of these fields that is given."""
    for name in names:
        if body.get(name) is not None:
            return field(body, name, int, 0)
    return None


def _stream_wanted(body: Body) -> bool:
    stream = field(body, "stream", bool, False)
    if body.get("stream_options") and not stream:
        raise ApiError(400, "Stream options can only be defined when `stream=True`.")
    return stream


def chat(site: Site, reply: Reply, plan: Plan) -> None:
    body = read_json(reply.request)
    site.model(body.get("model"))
    stream = _stream_wanted(body)
    continue_final = field(body, "continue_final_message", bool, False)
    if continue_final and field(body, "add_generation_prompt", bool, True):
        raise ApiError(400, "Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
    ids = chat_ids(field(body, "messages", list, []), continue_final=continue_final)
    max_tokens = whole_or_none(body, "max_completion_tokens", "max_tokens")
    made = choices([ids], body, site.limits, max_tokens, plan.slow)
    answer = ChatAnswer(make_job(site, body, request_id(reply, "chatcmpl-"), made))
    run(site, reply, plan, answer, stream=stream)


def completions(site: Site, reply: Reply, plan: Plan) -> None:
    body = read_json(reply.request)
    site.model(body.get("model"))
    stream = _stream_wanted(body)
    max_tokens = whole_or_none(body, "max_tokens")
    limit = _COMPLETION_TOKENS if max_tokens is None else max_tokens
    made = choices(prompt_ids(body.get("prompt")), body, site.limits, limit, plan.slow)
    answer = CompletionsAnswer(make_job(site, body, request_id(reply, "cmpl-"), made))
    run(site, reply, plan, answer, stream=stream)


def messages(site: Site, reply: Reply, plan: Plan) -> None:
    body = read_json(reply.request)
    site.model(body.get("model"))
    ids = _messages_ids(body)
    if body.get("max_tokens") is None:
        raise ApiError(400, "max_tokens: Field required", param="max_tokens")
    asked = {"stop": body.get("stop_sequences")}
    made = choices([ids], asked, site.limits, whole_or_none(body, "max_tokens"), plan.slow)
    answer = MessagesAnswer(make_job(site, body, request_id(reply, "chatcmpl-"), made))
    run(site, reply, plan, answer, stream=field(body, "stream", bool, False))


def count_tokens(site: Site, reply: Reply, plan: Plan) -> None:
    body = read_json(reply.request)
    site.model(body.get("model"))
    tokens = len(_messages_ids(body))
    reply.json(200, {"input_tokens": tokens, "context_management": {"original_input_tokens": tokens}})


def _messages_ids(body: Body) -> list[int]:
    conversation = list(field(body, "messages", list, []))
    if body.get("system"):
        conversation.insert(0, {"role": "system", "content": body["system"]})
    return chat_ids(conversation)


ROUTES: Routes = {
    ("POST", "/v1/chat/completions"): chat,
    ("POST", "/v1/completions"): completions,
    ("POST", "/v1/messages"): messages,
    ("POST", "/v1/messages/count_tokens"): count_tokens,
}
