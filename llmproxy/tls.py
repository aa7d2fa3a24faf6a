"""TLS for the listener, whose certificate may change while it listens."""

import ssl

from llmproxy.config.model import TlsConfig


class ListenerTls:
    """`context` is the listener's for good. `replace` decides which certificate new connections get; those that there
    are go on.

    A new pair loaded into the one context would not do: a certificate with another type of key (an RSA one after an
    ECDSA one) would stand beside the old one there, and some clients would still get that.
    """

    def __init__(self, config: TlsConfig) -> None:
        self.context = listener_context(config)
        self._current = self.context
        self.context.sni_callback = self._choose

    def replace(self, current: ssl.SSLContext) -> None:
        """From now on this one's certificate and key."""
        self._current = current

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Called in every handshake, also for clients that name no server."""
        connection.context = self._current


def listener_context(config: TlsConfig) -> ssl.SSLContext:
    """A server context, TLS 1.2 or newer. Raises ValueError when certificate and key are no pair, or unreadable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(config.cert, config.key)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"server.tls: cannot use {config.cert} with {config.key}: {error}") from error
    return context
