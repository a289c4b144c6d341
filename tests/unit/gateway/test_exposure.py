"""The gateway's socket: opened, handed down, and named."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from packetfs_compute.errors import ConfigurationError
from packetfs_compute.gateway.exposure import inherit, listen, url_of


def test_a_socket_that_listens_is_taken_over() -> None:
    with listen("127.0.0.1", 0) as opened, inherit(os.dup(opened.fileno())) as taken:
        assert taken.getsockname() == opened.getsockname()
        with socket.create_connection(taken.getsockname()[:2]):
            taken.accept()[0].close()


def unbound(path: Path) -> socket.socket:
    return socket.socket()


def of_datagrams(path: Path) -> socket.socket:
    return socket.socket(type=socket.SOCK_DGRAM)


def of_this_machine(path: Path) -> socket.socket:
    return socket.create_server(str(path), family=socket.AF_UNIX)


@pytest.mark.parametrize("make", [unbound, of_datagrams, of_this_machine])
def test_another_socket_is_refused_and_left_open(make: Callable[[Path], socket.socket], tmp_path: Path) -> None:
    with make(tmp_path / "socket") as other:
        with pytest.raises(ConfigurationError, match="no TCP socket that listens"):
            inherit(other.fileno())
        os.fstat(other.fileno())


def test_what_is_no_socket_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(ConfigurationError, match="is no socket"):
        inherit(file.fileno())
    with pytest.raises(ConfigurationError, match="is no socket"):
        inherit(file_number_of_none())


def file_number_of_none() -> int:
    """Return a descriptor that nobody has."""
    number = os.open(os.devnull, os.O_RDONLY)
    os.close(number)
    return number


def test_an_address_is_written_as_urls_are() -> None:
    with listen("127.0.0.1", 0) as opened:
        port = opened.getsockname()[1]
        assert url_of("127.0.0.1", opened) == f"http://127.0.0.1:{port}"
        assert url_of("::1", opened) == f"http://[::1]:{port}"
