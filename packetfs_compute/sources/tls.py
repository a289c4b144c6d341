"""One TLS context for many connections, which urllib3 must not change under them."""

import ssl

__all__ = ["settled"]


def settled(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return ``context`` with its ALPN set once and for all.

    urllib3 sets it again for each connection. While another thread connects with the same context, that is a use after
    free in OpenSSL (python/cpython#141012; seen here as ClientHellos whose ALPN is not what was set).
    """
    context.set_alpn_protocols(["http/1.1"])
    context.set_alpn_protocols = _leave_as_it_is  # type: ignore[method-assign]
    return context


def _leave_as_it_is(alpn_protocols: object) -> None:
    pass
