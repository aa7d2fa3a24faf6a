"""Errors as vLLM words them, in the dialect of the path."""

from typing import Any

ENGINE_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
ENGINE_BUSY = (
    "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."
)
SHUT_DOWN = "cannot schedule new futures after shutdown"

_TYPES = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError", 503: "Service Unavailable"}


class ApiError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str, *, type: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type or _TYPES.get(status, "Error")
        self.param = param


def error_body(error: ApiError, path: str) -> dict[str, Any]:
    """The body of an error: Anthropic's shape under `/v1/messages`, OpenAI's elsewhere."""
    if path.startswith("/v1/messages"):
        return {"type": "error", "error": {"type": error.type, "message": error.message}}
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.status}}


def model_not_found(model: str) -> ApiError:
    return ApiError(404, f"The model `{model}` does not exist.", param="model")
