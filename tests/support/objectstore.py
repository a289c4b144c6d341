"""An S3-compatible store on this machine: moto's server, in a thread."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from packetfs_compute.settings import Settings
from support.reading import OPEN


class ObjectStore:
    """A running store with one bucket; ``settings`` lead ``s3://`` to it."""

    bucket = "a-bucket"

    def __init__(self, endpoint: str) -> None:
        import boto3

        self.settings: Settings = dataclasses.replace(OPEN, s3_endpoint_url=endpoint, s3_region="us-east-1")
        self._client: Any = boto3.session.Session().client("s3", endpoint_url=endpoint, region_name="us-east-1")
        self._client.create_bucket(Bucket=self.bucket)

    def put(self, key: str, data: bytes) -> str:
        """Store an object and return its s3:// URL."""
        self._client.put_object(Bucket=self.bucket, Key=key, Body=data)
        return f"s3://{self.bucket}/{key}"

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def aws_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up credentials, and no look-up of others."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")


@pytest.fixture(scope="session")
def _moto() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def object_store(_moto: str, aws_keys: None) -> Iterator[ObjectStore]:
    store = ObjectStore(_moto)
    yield store
    store.close()
