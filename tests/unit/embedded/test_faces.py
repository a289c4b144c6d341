"""Where a system's gateway and Flower listen, what stands in their way, and whether they are said to answer."""

import logging
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from support.misbehaving import RawServer
from support.ports import free_port

from packetfs_compute.embedded import faces
from packetfs_compute.embedded.faces import Answers, gateway_socket, plan_flower
from packetfs_compute.errors import ConfigurationError
from packetfs_compute.gateway import open_keys
from packetfs_compute.settings import Settings

LOOPBACK = Settings(gateway_port=0)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


class TestGateway:
    def test_has_the_port_that_is_set(self) -> None:
        port = free_port()
        listening, url = gateway_socket(replace(LOOPBACK, gateway_port=port)) or pytest.fail("none")
        with listening, socket.create_connection(("127.0.0.1", port)):
            assert url == f"http://127.0.0.1:{port}"

    def test_has_another_where_that_is_taken_and_says_so(self, taken: int, caplog: pytest.LogCaptureFixture) -> None:
        listening, url = gateway_socket(replace(LOOPBACK, gateway_port=taken)) or pytest.fail("none")
        with listening:
            port = listening.getsockname()[1]
        assert port != taken
        assert url.endswith(f":{port}")
        assert f"port {taken} cannot be listened on" in caplog.text
        assert f"the gateway is at port {port} instead" in caplog.text

    @pytest.mark.parametrize("package", ["fastapi", "limits", "uvicorn", "websockets"])
    def test_is_none_without_the_extra_and_one_line_says_what_to_install(
        self, package: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        assert gateway_socket(LOOPBACK) is None
        (line,) = caplog.messages
        assert line == f"no gateway, since {package} is not installed: pip install 'packetfs-unified-compute[gateway]'"

    @pytest.mark.integration
    def test_is_none_on_a_network_without_a_key(
        self, redis_settings: Settings, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings = replace(redis_settings, gateway_host="0.0.0.0", gateway_port=0)
        assert gateway_socket(settings) is None
        assert "packetfs keys add" in caplog.text
        open_keys(settings).add(["read"])
        listening, _ = gateway_socket(settings) or pytest.fail("none")
        listening.close()
        caplog.clear()
        assert gateway_socket(replace(settings, gateway_host="192.0.2.1")) is None, "no address of this machine"
        assert "no gateway: 192.0.2.1 port 0 cannot be listened on" in caplog.text


class TestFlower:
    def test_has_a_password_of_its_own_that_is_shown_nowhere(self) -> None:
        first, second = plan_flower(free_port()), plan_flower(free_port())
        user, _, password = first.basic_auth.partition(":")
        assert (user, len(password) >= 20) == ("flower", True)
        assert first.basic_auth != second.basic_auth
        assert password not in repr(first)

    def test_has_the_one_that_is_given(self) -> None:
        assert plan_flower(free_port(), "a:b,c:d").basic_auth == "a:b,c:d"

    @pytest.mark.parametrize("given", ["hunter2", ":hunter2", "hunter2:", "a:b,hunter2"])
    def test_one_that_is_none_is_refused_and_not_shown(self, given: str) -> None:
        with pytest.raises(ConfigurationError, match="FLOWER_BASIC_AUTH") as caught:
            plan_flower(free_port(), given)
        assert "hunter2" not in repr(caught.value)

    def test_a_port_that_is_taken_is_told(self, taken: int) -> None:
        with pytest.raises(ConfigurationError, match=f"{taken} cannot be listened on") as caught:
            plan_flower(taken)
        assert "--flower-port" in str(caught.value.hint)

    def test_without_the_extra_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "flower", None)
        with pytest.raises(ConfigurationError, match="flower is not installed") as caught:
            plan_flower(free_port())
        assert caught.value.hint == "pip install 'packetfs-unified-compute[flower]'"


class TestAnswers:
    def test_one_that_answers_whatever_it_says(self) -> None:
        with RawServer(lambda x: x.send(b"HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n")) as server:
            assert Answers("127.0.0.1", server.port, "/health")() is True
            assert b"GET /health HTTP/1.1" in server.heads[0]

    def test_one_that_takes_connections_and_is_silent(self, taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(faces, "_PATIENCE_S", 0.1)
        assert Answers("127.0.0.1", taken, "/")() is False

    def test_one_that_is_not_there_or_speaks_something_else(self) -> None:
        assert Answers("127.0.0.1", free_port(), "/")() is False
        with RawServer(lambda x: x.send(b"220 ready\r\n")) as server:
            assert Answers("127.0.0.1", server.port, "/")() is False

    def test_it_is_not_asked_at_every_look(self) -> None:
        now = [100.0]
        with RawServer(lambda x: x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as server:
            answers = Answers("127.0.0.1", server.port, "/", lambda: now[0])
            for _ in range(10):
                assert answers()
                now[0] += 0.5
            assert len(server.heads) == 3


def test_a_notice_is_a_warning(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is logged as one reaches stderr though nobody has configured logging."""
    monkeypatch.setitem(sys.modules, "fastapi", None)
    gateway_socket(LOOPBACK)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
