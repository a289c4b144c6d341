"""Where the gateway listens: its socket, its address, and that no network reaches it without a key.

None of this needs the extra. Who starts a gateway may open its socket (``packetfs up`` does) and hand it down: the address
is then known before there is a process, and stays while one is started again.
"""

import ipaddress
import socket
from typing import Final

from packetfs_compute.errors import ConfigurationError
from packetfs_compute.gateway.keys import KeyStore
from packetfs_compute.settings import Settings

__all__ = ["BACKLOG", "check_exposure", "inherit", "is_loopback", "listen", "url_of"]

BACKLOG: Final = 512
"""Connections that wait to be taken."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; raise :class:`ConfigurationError` where that cannot be."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        details = {
            "field": "gateway_port",
            "hint": "choose another: --port or PACKETFS_GATEWAY_PORT, 0 is any that is free",
        }
        raise ConfigurationError(f"{host} port {port} cannot be listened on: {error.strerror}", details) from error
    # Each connection takes it over. asyncio sets it only where the socket names its protocol, which this one does not;
    # without it the second write of an answer waits 40 ms for the first one's acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def inherit(fd: int) -> socket.socket:
    """Return the socket that our parent opened as ``fd``; raise :class:`ConfigurationError` where it does not listen."""
    hint = {"field": "--fd", "hint": "give the descriptor of a TCP socket that listens"}
    try:
        listening = socket.socket(fileno=fd)
    except OSError as error:
        raise ConfigurationError(f"descriptor {fd} is no socket: {error.strerror}", hint) from error
    internet = listening.family in (socket.AF_INET, socket.AF_INET6) and listening.type == socket.SOCK_STREAM
    if not internet or not listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listening.detach()  # it is not ours to close
        raise ConfigurationError(f"descriptor {fd} is no TCP socket that listens", hint)
    return listening


def url_of(host: str, listening: socket.socket) -> str:
    """Return the address of a gateway that serves ``listening``, by the name ``host``."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"


def check_exposure(settings: Settings, keys: KeyStore) -> None:
    """Raise :class:`ConfigurationError` where the gateway would serve a network without a key."""
    if not is_loopback(settings.gateway_host) and not keys.find(None)[1]:
        raise ConfigurationError(
            f"there is no API key, and {settings.gateway_host} is not only this machine: anyone could submit jobs",
            {"field": "gateway_host", "hint": "make a key first: packetfs keys add --scope submit --scope read"},
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens at ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
