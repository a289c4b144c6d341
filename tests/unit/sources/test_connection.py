"""One connection: connecting, sending and waiting, each within its bound."""

import ipaddress
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from support.reading import OPEN

from packetfs_compute.deadline import Deadline, Token, cancelled_by
from packetfs_compute.errors import AttemptTimeout, Cancelled, SourceFailed
from packetfs_compute.sources.connection import Connection, Dropped
from packetfs_compute.sources.dial import dial
from packetfs_compute.sources.guard import check_url

Pair = tuple[Connection, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    connection = Connection(ours, 0.1, Deadline.after(10))
    yield connection, theirs
    connection.close()
    theirs.close()


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port whose backlog is full: Linux drops what else wants to connect, as a firewall does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
            waiting.append(sock)
        yield listener.getsockname()[1]
        for sock in waiting:
            sock.close()


@pytest.mark.parametrize(("connect_s", "budget_s", "error"), [(0.2, 5.0, SourceFailed), (5.0, 0.2, AttemptTimeout)])
def test_connecting_to_silence(full_port: int, connect_s: float, budget_s: float, error: type[Exception]) -> None:
    settings = replace(OPEN, connect_timeout_s=connect_s)
    target = check_url(f"http://127.0.0.1:{full_port}/", settings)
    addresses = [ipaddress.ip_address("127.0.0.1")] * 2
    with pytest.raises(error):
        dial(target, addresses, Deadline.after(budget_s), settings, None)


def test_sending_to_one_who_has_gone_is_told_apart(pair: Pair) -> None:
    connection, theirs = pair
    theirs.close()
    with pytest.raises(Dropped):
        connection.send(bytes(1 << 20))


def test_sending_to_one_who_does_not_read(pair: Pair) -> None:
    with pytest.raises(SourceFailed, match="took nothing"):
        pair[0].send(bytes(1 << 24))


def test_quiet_is_open_with_nothing_to_read(pair: Pair) -> None:
    connection, theirs = pair
    assert connection.quiet
    theirs.sendall(b"x")
    assert not connection.quiet
    assert not connection.quiet


def test_a_closed_connection_is_not_quiet(pair: Pair) -> None:
    connection, theirs = pair
    theirs.close()
    assert not connection.quiet
    connection.close()
    assert not connection.quiet


def test_a_connection_that_we_closed_is_not_quiet(pair: Pair) -> None:
    pair[0].close()
    assert not pair[0].quiet


def test_bytes_come_in_order_by_either_way_of_reading(pair: Pair) -> None:
    connection, theirs = pair
    theirs.sendall(b"one" + b"x" * 70_000)
    theirs.shutdown(socket.SHUT_WR)
    assert connection.recv(3) == b"one"
    view = memoryview(bytearray(100_000))
    got = 0
    while count := connection.recv_into(view[got:]):
        got += count
    assert view[:got] == b"x" * 70_000
    assert connection.recv(3) == b""


def test_one_who_says_nothing(pair: Pair) -> None:
    with pytest.raises(SourceFailed, match=r"sent nothing for 0\.1 s"):
        pair[0].recv(1)
    pair[0].deadline = Deadline.after(0.05)
    with pytest.raises(AttemptTimeout):
        pair[0].recv_into(memoryview(bytearray(1)))


class TestCancelled:
    """What can be cancelled waits in turns, of which nothing else is to be seen."""

    @pytest.fixture
    def token(self) -> Iterator[Token]:
        token = Token()
        with cancelled_by(token):
            yield token

    @pytest.mark.parametrize("how", ["recv", "recv_into"])
    def test_a_wait_ends(self, pair: Pair, token: Token, how: str) -> None:
        connection = Connection(pair[0]._sock, 20.0, Deadline.after(20))
        threading.Timer(0.1, token.cancel).start()
        with pytest.raises(Cancelled):
            connection.recv(1) if how == "recv" else connection.recv_into(memoryview(bytearray(1)))

    def test_nothing_is_sent_nor_read_afterwards(self, pair: Pair, token: Token) -> None:
        connection = Connection(pair[0]._sock, 20.0, Deadline.after(20))
        pair[1].sendall(b"x")
        token.cancel()
        for call in (lambda: connection.send(b"x"), lambda: connection.recv(1)):
            with pytest.raises(Cancelled):
                call()

    def test_bytes_that_take_longer_than_a_turn_arrive(self, pair: Pair, token: Token) -> None:
        connection = Connection(pair[0]._sock, 20.0, Deadline.after(20))
        threading.Timer(0.6, pair[1].sendall, (b"late",)).start()
        assert connection.recv(4) == b"late"
        assert not token.cancelled

    @pytest.mark.parametrize(
        ("stall_s", "budget_s", "error", "says"),
        [(0.7, 20.0, SourceFailed, "sent nothing for 0.7 s"), (20.0, 0.7, AttemptTimeout, "deadline of 0.7 s")],
    )
    def test_silence_is_bounded_as_ever(
        self, pair: Pair, token: Token, stall_s: float, budget_s: float, error: type[Exception], says: str
    ) -> None:
        connection = Connection(pair[0]._sock, stall_s, Deadline.after(budget_s))
        with pytest.raises(error, match=says):
            connection.recv(1)
        assert not token.cancelled
