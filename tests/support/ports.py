"""Ports on loopback that nobody listens at."""

import random
import socket
from contextlib import ExitStack

#: Ports the kernel gives to nobody by itself: above the well-known services, below what Linux hands out (32768 on).
NOT_HANDED_OUT = range(20_000, 32_000)


def free_port() -> int:
    """Return a port that is free now; nothing keeps it so."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def free_ports_from(count: int) -> int:
    """Return the first of ``count`` ports in a row that are free now, of those that connections are not given."""
    while True:
        first = random.choice(NOT_HANDED_OUT[: -count + 1 or None])
        with ExitStack() as probes:
            try:
                for port in range(first, first + count):
                    probes.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first
