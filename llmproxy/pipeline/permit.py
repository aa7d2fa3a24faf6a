"""What a key may be used for, where it may not be used for every model."""

from llmproxy.core.errors import Forbidden
from llmproxy.core.identity import Identity
from llmproxy.pipeline.exchange import Exchange
from llmproxy.pipeline.response_ids import id_in_path


def permit(x: Exchange, identity: Identity) -> None:
    """Let a request pass whose key is good for some models only. Raises `Forbidden`.

    A request that names no model gets whatever the engine serves, and one whose body is passed on unread may name any:
    neither passes, unless the path is about no model."""
    route, request = x.route, x.request
    if not route.has_model or (route.responses and id_in_path(route.path) is not None):
        return
    if request.streamed and request.content_length != 0:
        raise Forbidden(
            "This key is for certain models only, and this body is passed on unread, so its model is not known.",
            code="model_not_allowed",
            param="model",
        )
    if x.model is None:
        if request.method == b"POST" or request.body:
            raise Forbidden("This key is for certain models only: name one.", code="model_not_allowed", param="model")
        return
    if not identity.allows(x.model):
        raise Forbidden(
            f"This key may not be used for the model `{x.model[:200]}`.", code="model_not_allowed", param="model"
        )
