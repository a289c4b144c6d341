"""What stores declare of an object: read from heads, asked of a real S3's look-alike and of a server that is like GCS."""

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from support.objectstore import ObjectStore
from support.reading import OPEN

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import ForbiddenSource, SourceFailed, SourceNotFound
from packetfs_compute.kernels import crc32c
from packetfs_compute.settings import Settings
from packetfs_compute.sources.declared import Declared, declared, declared_by
from packetfs_compute.sources.http1 import Head

DATA = b"hello world" * 1000
CRC = crc32c(DATA)
TEXT = base64.b64encode(CRC.to_bytes(4)).decode()


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ([("x-goog-hash", f"crc32c={TEXT}")], CRC),
        ([("x-goog-hash", f"crc32c={TEXT},md5=XrY7u+Ae7tCTyyK7j1rNww==")], CRC),
        ([("x-goog-hash", "md5=XrY7u+Ae7tCTyyK7j1rNww=="), ("x-goog-hash", f"crc32c={TEXT}")], CRC),
        ([("x-goog-hash", f"crc32c={TEXT}"), ("x-goog-stored-content-encoding", "identity")], CRC),
        ([("x-amz-checksum-crc32c", TEXT), ("x-amz-checksum-type", "FULL_OBJECT")], CRC),
        ([("x-amz-checksum-crc32c", TEXT)], CRC),
        ([("x-amz-checksum-crc32c", "AAAAAA==")], 0),
    ],
)
def test_what_is_declared_of_the_whole_object(fields: list[tuple[str, str]], value: int) -> None:
    assert declared_by(Head(200, 1, tuple(fields))) == (value, None)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ([], "no crc32c"),
        ([("x-goog-hash", "md5=XrY7u+Ae7tCTyyK7j1rNww==")], "no crc32c"),
        ([("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=")], "no crc32c"),
        ([("x-amz-checksum-crc32c", TEXT), ("x-amz-checksum-type", "COMPOSITE")], "composite"),
        ([("x-amz-checksum-crc32c", f"{TEXT}-3")], "composite"),
        ([("x-goog-hash", f"crc32c={TEXT}"), ("x-goog-stored-content-encoding", "gzip")], "hands out other bytes"),
        ([("x-goog-hash", "crc32c=AAAA")], "which is none"),
        ([("x-goog-hash", "crc32c=")], "which is none"),
        ([("x-goog-hash", "crc32c=é!")], "which is none"),
        ([("x-amz-checksum-crc32c", "AAAAAAAA")], "which is none"),
        ([("x-goog-hash", f"crc32c={TEXT}"), ("x-goog-hash", "crc32c=AAAAAA==")], "which is none"),
    ],
)
def test_what_cannot_be_compared(fields: list[tuple[str, str]], why: str) -> None:
    value, told = declared_by(Head(200, 1, tuple(fields)))
    assert value is None
    assert why in (told or "")


def ask(url: str, settings: Any = OPEN) -> Declared:
    return declared(url, Deadline.after(10), settings)


class TestS3:
    def put(self, store: ObjectStore, **more: Any) -> str:
        client = boto3.session.Session().client(
            "s3", endpoint_url=store.settings.s3_endpoint_url, region_name="us-east-1"
        )
        client.put_object(Bucket=store.bucket, Key="declared", Body=DATA, **more)
        client.close()
        return f"s3://{store.bucket}/declared"

    def test_one_that_was_uploaded_with_one(self, object_store: ObjectStore) -> None:
        said = ask(self.put(object_store, ChecksumAlgorithm="CRC32C", ChecksumCRC32C=TEXT), object_store.settings)
        assert (said.crc32c, said.why, said.object_size) == (CRC, None, len(DATA))
        assert said.etag

    def test_one_that_was_not(self, object_store: ObjectStore) -> None:
        said = ask(self.put(object_store, ChecksumAlgorithm="SHA256"), object_store.settings)
        assert (said.crc32c, said.why, said.object_size) == (None, "the store declares no crc32c", len(DATA))

    def test_one_that_is_not_there(self, object_store: ObjectStore) -> None:
        with pytest.raises(SourceNotFound):
            ask(f"s3://{object_store.bucket}/none", object_store.settings)


class Server:
    """An HTTP server that answers every GET alike, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.fields: dict[str, str] = {}
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
                self.send_response(outer.status)
                for name, value in {"Content-Length": str(1 << 30), **outer.fields}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                del args

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{path}"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


class TestHttp:
    @pytest.fixture(autouse=True)
    def ports(self, server: Server) -> None:
        server.fields = {"ETag": '"v1"', "X-Goog-Hash": f"crc32c={TEXT}"}

    def test_the_whole_object_is_asked_for_and_none_of_it_read(self, server: Server) -> None:
        assert ask(server.url("bucket/object")) == Declared(CRC, None, 1 << 30, '"v1"')
        ((path, fields),) = server.asked
        assert path == "/bucket/object"
        assert "range" not in fields
        assert fields["x-amz-checksum-mode"] == "ENABLED"
        assert fields["accept-encoding"] == "identity"

    @pytest.mark.parametrize(
        ("query", "sent"),
        [
            ("?X-Amz-Signature=aa&X-Amz-SignedHeaders=host", False),
            ("?X-Amz-Signature=aa&X-Amz-SignedHeaders=host%3Bx-amz-checksum-mode", True),
            ("?X-Goog-Signature=aa", False),
            ("?versionId=3", True),
        ],
    )
    def test_nothing_is_sent_that_a_signature_does_not_cover(self, server: Server, query: str, sent: bool) -> None:
        assert ask(server.url("o" + query)).crc32c == CRC
        assert ("x-amz-checksum-mode" in server.asked[0][1]) is sent

    def test_a_weak_etag_is_no_version(self, server: Server) -> None:
        server.fields["ETag"] = 'W/"v1"'
        assert ask(server.url("o")).etag is None

    def test_a_failure_is_the_sources(self, server: Server) -> None:
        server.status = 403
        with pytest.raises(SourceFailed, match="refuses access"):
            ask(server.url("o"))
        server.status = 416
        with pytest.raises(SourceFailed, match="even the whole"):
            ask(server.url("o"))

    def test_an_address_that_is_not_open_is_not_asked(self, server: Server) -> None:
        with pytest.raises(ForbiddenSource):
            ask(server.url("o"), Settings())
        assert server.asked == []


def test_a_file_declares_nothing() -> None:
    for url in ("/a/file", "file:///a/file"):
        assert ask(url) == Declared(None, "a local file declares no checksum")


def test_what_is_no_source() -> None:
    with pytest.raises(ForbiddenSource):
        ask("ftp://host/object")
