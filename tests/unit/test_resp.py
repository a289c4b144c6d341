"""The small Redis client: on the real server, and on one that says what no server should."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from packetfs_compute.resp import Address, Refused, RespConnection, address_of
from packetfs_compute.settings import Settings

LONG_S = 20.0


@pytest.fixture
def connection(redis_settings: Settings) -> Iterator[RespConnection]:
    made = RespConnection(address(redis_settings), LONG_S, LONG_S)
    made.open()
    yield made
    made.close()


def address(settings: Settings, **more: Any) -> Address:
    return Address(path=str(settings.socket_path), **more)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://host", Address("host")),
        ("redis://host:6380/3", Address("host", 6380, database=3)),
        ("redis://", Address("localhost")),
        ("redis://[::1]:6380/", Address("::1", 6380)),
        ("redis://:p%40ss@host", Address("host", password="p@ss")),
        ("redis://me:p%3Ass@host/0", Address("host", user="me", password="p:ss")),
        ("unix:///run/a%20b.sock", Address(path="/run/a b.sock")),
        ("unix://me:pass@/run/redis.sock", Address(path="/run/redis.sock", user="me", password="pass")),
    ],
)
def test_an_address_is_what_redis_py_takes_a_url_for(url: str, told: Address) -> None:
    assert address_of(url) == told
    theirs = redis.connection.parse_url(url)
    ours = {
        "host": told.host, "port": told.port, "path": told.path, "db": told.database,
        "username": told.user, "password": told.password,
    }  # fmt: skip
    assert {name: ours[name] for name in theirs if name != "connection_class"} == {
        name: value for name, value in theirs.items() if name != "connection_class"
    }


@pytest.mark.parametrize(
    "url",
    [
        "rediss://host", "amqp://host", "redis://host?db=1", "unix:///run/redis.sock?db=1", "redis://me@host",
        "redis://host/name", "redis://host:99999", "redis://[::1", "unix://",
    ],
)  # fmt: skip
def test_what_redis_py_alone_understands_has_no_address(url: str) -> None:
    assert address_of(url) is None


class TestAsking:
    def test_answers_come_in_order_and_in_redis_types(self, connection: RespConnection) -> None:
        long = "é\r\n" * 100_000
        told = connection.ask(
            ("SET", "k", long), ("GET", "k"), ("GET", "none"), ("INCR", "n"), ("LPUSH", "l", b"\0", 1.5)
        )
        assert told == [b"OK", long.encode(), None, 1, 2]
        assert connection.ask(("LRANGE", "l", 0, -1), ("LRANGE", "none", 0, -1)) == [[b"1.5", b"\0"], []]
        *_, told = connection.ask(("MULTI",), ("GET", "none"), ("LRANGE", "l", 0, 0), ("EXEC",))
        assert told == [None, [b"1.5"]]

    def test_what_the_server_refuses_is_told(self, connection: RespConnection) -> None:
        with pytest.raises(Refused, match="unknown command"):
            connection.ask(("NONSENSE",))

    def test_who_we_are_is_said_first(self, redis_settings: Settings, redis_client: Any) -> None:
        redis_client.execute_command("ACL", "SETUSER", "me", "on", ">secret", "+@all", "~*")
        try:
            ours = RespConnection(address(redis_settings, user="me", password="secret", database=2), LONG_S, LONG_S)
            ours.open()
            assert ours.ask(("ACL", "WHOAMI"), ("SET", "k", "v")) == [b"me", b"OK"]
            assert redis_client.exists("k") == 0
            ours.ask(("DEL", "k"))
            ours.close()
            other = RespConnection(address(redis_settings, user="me", password="wrong"), LONG_S, LONG_S)
            with pytest.raises(Refused, match="WRONGPASS"):
                other.open()
            other.close()
        finally:
            redis_client.execute_command("ACL", "DELUSER", "me")

    def test_one_that_was_closed_says_so(self, connection: RespConnection) -> None:
        connection.close()
        with pytest.raises(ConnectionError):
            connection.ask(("PING",))

    def test_one_that_was_lost_says_so(self, connection: RespConnection, redis_client: Any) -> None:
        redis_client.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(OSError):
            connection.ask(("PING",))


def waited_s(connection: RespConnection, seconds: float) -> float:
    started_s = time.monotonic()
    connection.hear(seconds)
    return time.monotonic() - started_s


class TestHearing:
    @pytest.fixture
    def listening(self, connection: RespConnection) -> RespConnection:
        assert connection.ask(("SUBSCRIBE", "news")) == [[b"subscribe", b"news", 1]]
        return connection

    def test_a_wait_ends_with_what_is_said(self, listening: RespConnection, redis_client: Any) -> None:
        timer = threading.Timer(0.2, redis_client.publish, ("news", "x"))
        timer.start()
        assert waited_s(listening, LONG_S) < LONG_S / 2
        timer.join()

    def test_where_nothing_is_said_it_lasts(self, listening: RespConnection, redis_client: Any) -> None:
        redis_client.publish("other", "x")
        assert waited_s(listening, 0.3) >= 0.3

    def test_nor_does_it_turn_without_a_pause_when_the_connection_is_gone(
        self, listening: RespConnection, redis_client: Any
    ) -> None:
        redis_client.client_kill_filter(_type="pubsub")
        assert waited_s(listening, 0.3) >= 0.3
        assert waited_s(listening, 0.3) >= 0.3


@pytest.fixture
def saying() -> Iterator[Callable[[bytes], RespConnection]]:
    """A server, on TCP, that says the given bytes to whatever it is asked and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threads = []

        def connected(answer: bytes) -> RespConnection:
            def serve() -> None:
                peer, _ = server.accept()
                with peer:
                    peer.recv(1 << 16)
                    peer.sendall(answer)

            threads.append(threading.Thread(target=serve))
            threads[-1].start()
            made = RespConnection(Address("127.0.0.1", server.getsockname()[1]), LONG_S, LONG_S)
            made.open()
            return made

        yield connected
        for thread in threads:
            thread.join()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", OSError), (b"$5\r\nabc", OSError), (b"*2\r\n:1\r\n", OSError), (b"!x\r\n", Refused), (b":x\r\n", Refused),
        (b"$-2\r\n", Refused), (b"$999999999999\r\n", Refused), (b"*999999999\r\n", Refused),
        (b"*1\r\n" * 100 + b":1\r\n", Refused), (b"+" + b"x" * (1 << 18), Refused), (b"HTTP/1.1 400 Bad\r\n", Refused),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_none(
    saying: Callable[[bytes], RespConnection], answer: bytes, error: type[Exception]
) -> None:
    connection = saying(answer)
    with pytest.raises(error):
        connection.ask(("PING",))
    connection.close()


def test_an_answer_in_pieces_is_one(saying: Callable[[bytes], RespConnection]) -> None:
    connection = saying(b"*3\r\n$2\r\nab\r\n$-1\r\n*1\r\n:7\r\n")
    assert connection.ask(("PING",)) == [[b"ab", None, [7]]]
    connection.close()


def test_a_server_that_says_nothing_is_not_waited_for_for_ever() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = RespConnection(Address("127.0.0.1", server.getsockname()[1]), 1000.0, 0.1)
        connection.open()
        with pytest.raises(TimeoutError):
            connection.ask(("PING",))
        connection.close()
