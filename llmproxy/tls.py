"""TLS for the listener."""

import ssl

from llmproxy.config.model import TlsConfig


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
