"""What is told to those who are not let in. Nothing of what they sent is in it."""

from llmproxy.core.errors import ProxyError, Unauthorized

RETRY_AFTER_S = 2


class Refused(Unauthorized):
    """401. `reason` is the label to count it under."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    def again(self) -> "Refused":
        """The same, to be raised anew: an exception that is kept would keep the frames it was raised in."""
        return Refused(self.message, self.reason)


def missing() -> Refused:
    return Refused(
        "No API key was sent. Send one as `Authorization: Bearer KEY` (or as `x-api-key` or `api-key`).", "missing"
    )


def unknown() -> Refused:
    return Refused("The API key is not valid.", "unknown")


def expired() -> Refused:
    return Refused("The API key has expired.", "expired")


def revoked() -> Refused:
    return Refused("The API key was revoked.", "revoked")


def bad_token(why: str) -> Refused:
    """`why` is ours, never a part of the token."""
    return Refused(f"The token is not valid: {why}.", "token")


def unavailable(what: str) -> ProxyError:
    """503: who could tell whether the key is good cannot be asked now."""
    return ProxyError(
        f"{what} cannot be reached now, so this key cannot be checked; try again.",
        status=503,
        code="auth_unavailable",
        retry_after_s=RETRY_AFTER_S,
    )
