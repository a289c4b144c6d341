"""TLS: the certificate must be for the name that was asked for, whatever address was connected to."""

import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace

import pytest
import trustme
from support.misbehaving import RawServer, answer, honest, says
from support.reading import DATA, OPEN, read

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import AttemptTimeout, ForbiddenSource, SourceFailed
from packetfs_compute.sources import RangeRequest
from packetfs_compute.sources.http import HttpSource

NAME = "good.example.com"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[RawServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME).configure_cert(context)
    with RawServer(honest(DATA), lambda sock: context.wrap_socket(sock, server_side=True)) as running:
        yield running


@pytest.fixture
def source(authority: trustme.CA) -> Iterator[HttpSource]:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    made = HttpSource(OPEN, lambda host: ["127.0.0.1"], context)
    yield made
    made.close()


def test_the_right_name_is_read_on_one_connection(server: RawServer, source: HttpSource) -> None:
    for at in (0, 100, 200):
        assert read(source, RangeRequest(server.url(host=NAME, scheme="https"), at, 50)).data == DATA[at : at + 50]
    assert server.connections == 1


@pytest.mark.parametrize("host", ["bad.example.com", "127.0.0.1"])
def test_another_name_is_refused_before_anything_is_asked(server: RawServer, source: HttpSource, host: str) -> None:
    with pytest.raises(SourceFailed, match="certificate") as caught:
        read(source, RangeRequest(server.url(host=host, scheme="https")))
    assert not caught.value.retryable
    assert server.heads == []


def test_a_certificate_may_be_for_an_address(authority: trustme.CA, source: HttpSource) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with RawServer(honest(DATA), lambda sock: context.wrap_socket(sock, server_side=True)) as running:
        assert read(source, RangeRequest(running.url(scheme="https"))).data == DATA
        with pytest.raises(SourceFailed, match="certificate"):
            read(source, RangeRequest(running.url(host=NAME, scheme="https")))
    source.close()


def test_the_context_that_all_connections_share_is_left_as_it_is(
    authority: trustme.CA, server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """urllib3 would set its ALPN again for each connection, while other threads connect with it."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    told = []
    monkeypatch.setattr(ssl.SSLContext, "set_alpn_protocols", lambda _, protocols: told.append(protocols))
    source = HttpSource(OPEN, lambda host: ["127.0.0.1"], context)

    streams = [
        source.open(RangeRequest(server.url(host=NAME, scheme="https"), at), Deadline.after(5)) for at in range(3)
    ]
    assert [b"".join(map(bytes, stream)) for stream in streams] == [DATA[at:] for at in range(3)]
    assert server.connections == 3
    assert told == [["http/1.1"]]
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    source.close()


def test_an_unknown_authority_is_refused(server: RawServer) -> None:
    source = HttpSource(OPEN, lambda host: ["127.0.0.1"])
    with pytest.raises(SourceFailed, match="certificate"):
        read(source, RangeRequest(server.url(host=NAME, scheme="https")))


def test_a_redirect_from_https_to_http_is_refused(server: RawServer, source: HttpSource) -> None:
    with RawServer(honest(DATA)) as plain:
        server.routes["/object"] = says(answer("302 Found", f"Location: {plain.url()}", "Content-Length: 0"))
        with pytest.raises(ForbiddenSource, match="https to http"):
            read(source, RangeRequest(server.url(host=NAME, scheme="https")))
        assert plain.heads == []


def test_plain_http_on_a_tls_port(server: RawServer, source: HttpSource) -> None:
    with pytest.raises(SourceFailed):
        read(source, RangeRequest(server.url(host=NAME)))


def test_tls_on_a_plain_port(source: HttpSource) -> None:
    """A server that speaks first, so that it is its words that are no TLS."""

    def greet(sock: socket.socket) -> socket.socket:
        sock.sendall(b"220 hello\r\n")
        return sock

    with RawServer(honest(DATA), greet) as plain, pytest.raises(SourceFailed, match=f"no TLS with {NAME}") as caught:
        read(source, RangeRequest(plain.url(host=NAME, scheme="https")))
    assert caught.value.retryable


@pytest.mark.parametrize(("connect_s", "budget_s", "error"), [(0.2, 5.0, SourceFailed), (5.0, 0.2, AttemptTimeout)])
def test_a_handshake_that_never_ends(connect_s: float, budget_s: float, error: type[Exception]) -> None:
    """A plain server waits for the end of a head that never comes."""
    source = HttpSource(replace(OPEN, connect_timeout_s=connect_s), lambda host: ["127.0.0.1"])
    with RawServer(honest(DATA)) as plain, pytest.raises(error):
        read(source, RangeRequest(plain.url(host=NAME, scheme="https")), budget_s)
