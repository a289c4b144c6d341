"""Ports on loopback that nobody listens at."""

import socket


def free_port() -> int:
    """Return a port that is free now; nothing keeps it so."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
