"""The guard at work: what is looked up, what is connected to, where redirects may lead."""

import socket
from collections.abc import Sequence
from dataclasses import replace

import pytest
from support.misbehaving import RawServer, answer, honest, says
from support.reading import DATA, OPEN, read

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import AttemptTimeout, ForbiddenSource, JobError, SourceFailed
from packetfs_compute.settings import Settings
from packetfs_compute.sources import RangeRequest
from packetfs_compute.sources.http import HttpSource
from packetfs_compute.sources.resolve import system_look_up


class Names:
    """A resolver of fixed answers, one list after the other, that remembers what it was asked."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


def attempt(url: str, settings: Settings, names: Names) -> JobError:
    source = HttpSource(settings, names)
    with pytest.raises(JobError) as caught:
        read(source, RangeRequest(url))
    source.close()
    return caught.value


@pytest.mark.parametrize("answers", [["93.184.216.34", "127.0.0.1"], ["2606:4700::1", "::ffff:10.0.0.1"]])
def test_one_private_answer_among_public_ones_refuses_the_name(answers: list[str]) -> None:
    names = Names(answers)
    assert type(attempt("http://example.com/", Settings(), names)) is ForbiddenSource
    assert names.asked == ["example.com"]


@pytest.mark.parametrize("url", ["http://localhost/", "http://a.internal/", "http://example.com:6379/"])
def test_what_is_closed_by_its_text_is_not_even_looked_up(url: str) -> None:
    names = Names(["93.184.216.34"])
    assert type(attempt(url, Settings(), names)) is ForbiddenSource
    assert names.asked == []


def test_rebinding_finds_no_second_look_up() -> None:
    """The name is looked up once and its checked address is what is connected to, whatever a second answer were."""
    names = Names(["127.0.0.1"], ["10.0.0.1"])
    source = HttpSource(OPEN, names)
    with RawServer(honest(DATA)) as server:
        assert read(source, RangeRequest(server.url(host="rebind.example.com"))).data == DATA
        assert names.asked == ["rebind.example.com"]
        assert f"Host: rebind.example.com:{server.port}".encode() in server.heads[0]
        source.close()
        # Connected anew, the name is vetted anew.
        with pytest.raises(ForbiddenSource):
            read(source, RangeRequest(server.url(host="rebind.example.com")))


def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    source = HttpSource(OPEN, Names(["127.0.0.2", "127.0.0.1"]))
    with RawServer(honest(DATA)) as server:
        assert read(source, RangeRequest(server.url(host="two.example.com"))).data == DATA
    source.close()


def test_localhost_works_where_its_network_is_open() -> None:
    source = HttpSource(OPEN)
    with RawServer(honest(DATA)) as server:
        assert read(source, RangeRequest(server.url(host="localhost"))).data == DATA
    source.close()


@pytest.mark.parametrize(
    "location",
    [
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "//192.168.0.1/",
        "http://[::ffff:127.0.0.1]/",
        "http://0x7f000001/",
        "http://metadata.google.internal./",
        "http://93.184.216.34:22/",
        "file:///etc/passwd",
        "ftp://example.com/",
    ],
)
def test_no_redirect_leads_to_a_closed_place(location: str) -> None:
    names = Names(["169.254.169.254"])
    with RawServer(says(answer("302 Found", f"Location: {location}", "Content-Length: 0"))) as server:
        assert type(attempt(server.url(), OPEN, names)) is ForbiddenSource


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["/there", "there", "?there", "http://other.example.com:{}/there#fragment"])
def test_redirects_are_followed_with_the_range(status: int, location: str) -> None:
    with RawServer(honest(DATA)) as server:
        target = location.format(server.port)
        server.routes["/object"] = says(answer(f"{status} See", f"Location: {target}", "Content-Length: 2", body=b"no"))
        source = HttpSource(OPEN, Names(["127.0.0.1"]))
        assert read(source, RangeRequest(server.url(), 10, 20)).data == DATA[10:30]
        source.close()
        assert b"Range: bytes=10-29" in server.heads[1]
        assert b"#" not in server.heads[1]


def test_a_name_without_an_address() -> None:
    assert type(attempt("http://example.com/", Settings(), Names([]))) is SourceFailed


def test_look_ups_that_hang_meet_the_deadline_and_do_not_pile_up() -> None:
    import threading

    release = threading.Event()

    def hang(host: str) -> list[str]:
        release.wait(20)
        return []

    source = HttpSource(replace(Settings(), connect_timeout_s=0.1), hang)
    try:
        with pytest.raises(AttemptTimeout):
            source.open(RangeRequest("http://example.com/"), Deadline.after(0.05))
        for _ in range(15):
            with pytest.raises(SourceFailed, match="was not found within"):
                source.open(RangeRequest("http://example.com/"), Deadline.after(5))
        with pytest.raises(SourceFailed, match="look-ups hang"):
            source.open(RangeRequest("http://example.com/"), Deadline.after(5))
    finally:
        release.set()


def test_the_system_resolver_gives_each_address_once() -> None:
    assert system_look_up("127.0.0.1") == ["127.0.0.1"]
    assert "127.0.0.1" in system_look_up("localhost")


def test_a_closed_port_is_a_source_that_failed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = attempt(f"http://127.0.0.1:{port}/", OPEN, Names([]))
    assert type(error) is SourceFailed
    assert error.retryable


def test_no_proxy_and_no_netrc_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    source = HttpSource(OPEN)
    with RawServer(honest(DATA)) as server:
        assert read(source, RangeRequest(server.url())).data == DATA
        assert b"GET /object HTTP/1.1\r\n" in server.heads[0]
        assert b"uthorization" not in server.heads[0]
    source.close()
