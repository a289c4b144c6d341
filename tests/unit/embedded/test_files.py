"""The server of one file, against RFC 9110: ranges (section 14) and preconditions (section 13)."""

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from packetfs_compute.embedded.files import serve_file

DATA = bytes(range(256)) * 4
SIZE = len(DATA)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("files") / "object.bin"
    path.write_bytes(DATA)
    with serve_file(path) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    yield connection
    connection.close()


def get(client: http.client.HTTPConnection, **fields: str) -> tuple[http.client.HTTPResponse, bytes]:
    client.request("GET", "/object.bin", headers={name.replace("_", "-"): value for name, value in fields.items()})
    answer = client.getresponse()
    return answer, answer.read()


def etag_of(client: http.client.HTTPConnection) -> str:
    etag = get(client)[0].headers["ETag"]
    assert etag is not None
    return etag


def test_the_whole_file(client: http.client.HTTPConnection, url: str) -> None:
    answer, body = get(client)
    assert (answer.status, body) == (200, DATA)
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Content-Length"] == str(SIZE)
    assert answer.headers["Content-Range"] is None
    assert urlsplit(url).hostname == "127.0.0.1"
    assert urlsplit(url).path == "/object.bin"


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, SIZE),
        ("bytes=5-9", 5, 10),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        (f"bytes={SIZE - 1}-{SIZE - 1}", SIZE - 1, SIZE),
        (f"bytes=0-{SIZE - 1}", 0, SIZE),
        (f"bytes=0-{SIZE}", 0, SIZE),
        ("bytes=1000-99999999999", 1000, SIZE),
    ],
)
def test_a_part(client: http.client.HTTPConnection, wanted: str, start: int, stop: int) -> None:
    answer, body = get(client, Range=wanted)
    assert (answer.status, body) == (206, DATA[start:stop])
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert answer.headers["Content-Length"] == str(stop - start)
    assert answer.headers["ETag"] == etag_of(client)


@pytest.mark.parametrize("wanted", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE}", "bytes=99999-100000", "bytes=9-5"])
def test_a_part_that_there_is_not(client: http.client.HTTPConnection, wanted: str) -> None:
    answer, body = get(client, Range=wanted)
    assert (answer.status, body) == (416, b"")
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "wanted", ["bytes=0-1,5-6", "items=0-1", "bytes=", "bytes=-", "bytes=a-b", "0-1", "bytes=-5", ""]
)
def test_what_it_does_not_understand_it_may_ignore(client: http.client.HTTPConnection, wanted: str) -> None:
    answer, body = get(client, Range=wanted)
    assert (answer.status, body) == (200, DATA)


def test_the_entity_tag_is_strong(client: http.client.HTTPConnection) -> None:
    etag = etag_of(client)
    assert etag.startswith('"')
    assert etag.endswith('"')
    assert len(etag) > 4


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ("{}", 206),
        ("*", 206),
        ('"other", {}', 206),
        ('{},"other"', 206),
        ('"other"', 412),
        ("W/{}", 412),
        ("other", 412),
    ],
)
def test_if_match(client: http.client.HTTPConnection, form: str, status: int) -> None:
    answer, body = get(client, Range="bytes=3-4", If_Match=form.format(etag_of(client)))
    assert (answer.status, body) == (status, DATA[3:5] if status == 206 else b"")


def test_a_precondition_comes_before_the_range(client: http.client.HTTPConnection) -> None:
    assert get(client, Range=f"bytes={SIZE}-", If_Match='"other"')[0].status == 412


@pytest.mark.parametrize(("form", "status"), [("{}", 206), ('"other"', 200), ("W/{}", 200)])
def test_if_range(client: http.client.HTTPConnection, form: str, status: int) -> None:
    answer, body = get(client, Range="bytes=3-4", If_Range=form.format(etag_of(client)))
    assert (answer.status, body) == (status, DATA[3:5] if status == 206 else DATA)


def test_one_connection_serves_many_requests(client: http.client.HTTPConnection) -> None:
    get(client)
    sock = client.sock
    for wanted in ("bytes=1-2", f"bytes={SIZE}-", "bytes=3-"):
        get(client, Range=wanted)
    assert get(client, If_Match='"other"')[0].status == 412
    assert client.sock is sock


def test_many_clients_at_once(url: str) -> None:
    bodies: list[bytes] = []

    def read() -> None:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
        bodies.append(get(connection, Range="bytes=100-")[1])
        connection.close()

    threads = [threading.Thread(target=read) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies == [DATA[100:]] * 16


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_another_method_is_not_implemented(client: http.client.HTTPConnection, method: str) -> None:
    client.request(method, "/object.bin")
    answer = client.getresponse()
    answer.read()
    assert answer.status == 501


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    with serve_file(tmp_path / "empty") as url:
        client = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
        assert [answer.status for answer in (get(client)[0], get(client, Range="bytes=0-")[0])] == [200, 416]
        client.close()


def test_it_is_gone_afterwards(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    with serve_file(tmp_path / "x") as url:
        pass
    client = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    with pytest.raises(ConnectionRefusedError):
        client.connect()
    client.close()
