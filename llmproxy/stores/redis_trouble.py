"""What is wrong with a Redis, in words for a log: never what was sent to it, which may hold a password."""

import ssl


def in_words(error: BaseException) -> str:
    """Of whatever was raised on the way to Redis, or by it."""
    for one in _causes(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {getattr(one, 'verify_message', str(one)).rstrip('.')}"
        if isinstance(one, ssl.SSLError):
            # Both only where OpenSSL said so.
            return f"TLS fails: {getattr(one, 'reason', None) or one.strerror or one}"
    if isinstance(error, TimeoutError):
        return str(error) or "no answer in time"
    # "unknown command 'AUTH', with args beginning with: ..." would show what it was asked.
    return str(error).partition(", with args")[0] or type(error).__name__


def _causes(error: BaseException) -> list[BaseException]:
    """It, and what it came of."""
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in found:
        found.append(following)
        following = following.__cause__ or following.__context__
    return found
