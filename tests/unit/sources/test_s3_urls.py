"""s3:// URLs: what is signed, and what is said when it cannot be."""

import sys
from dataclasses import replace
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from packetfs_compute.errors import BadProgram, SourceFailed
from packetfs_compute.settings import Settings
from packetfs_compute.sources import presign
from packetfs_compute.sources.guard import check_url
from packetfs_compute.sources.s3 import _signer

AWS = replace(Settings(), s3_region="eu-west-1")


@pytest.fixture(autouse=True)
def fresh_clients(aws_keys: None) -> None:
    _signer.cache_clear()


def test_the_key_is_taken_literally_and_no_secret_is_in_the_url() -> None:
    url = presign("s3://a-bucket/dir/a key+%25%é?x=1#y", AWS)
    parts = urlsplit(url)
    assert parts.scheme == "https"
    assert parts.netloc == "a-bucket.s3.eu-west-1.amazonaws.com" or parts.netloc.endswith("amazonaws.com")
    assert unquote(parts.path).endswith("/dir/a key+%25%é?x=1#y")
    assert parse_qs(parts.query)["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert parse_qs(parts.query)["X-Amz-Expires"] == ["3600"]
    check_url(url, Settings())


def test_a_signed_url_that_is_too_long_to_read_is_told_as_such() -> None:
    with pytest.raises(BadProgram, match="signed URL is") as caught:
        presign("s3://a-bucket/" + "é" * 500, AWS)
    assert caught.value.details["field"] == "program.data_url"


def test_other_urls_are_left_alone() -> None:
    for url in ("https://example.com/s3://", "/a/file", "S4://x/y"):
        assert presign(url, AWS) == url


@pytest.mark.parametrize(
    "url", ["s3:", "s3://", "s3:///key", "s3://bucket", "s3://bucket/", "s3://ab/key", "s3://UPPER/key", "s3://a_b/key",
            "s3://a..b/key", "s3://-ab/key", "s3://a@b.c/key", "s3://a:80/key", "s3:/a-bucket/key",
            "s3://" + "a" * 64 + "/k", "s3://a-bucket/" + "é" * 513, "s3://a-bucket/\ud800"]
)  # fmt: skip
def test_what_names_no_object(url: str) -> None:
    with pytest.raises(BadProgram):
        presign(url, AWS)


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SourceFailed) as caught:
        presign("s3://a-bucket/key", AWS)
    assert not caught.value.retryable
    assert "AWS_ACCESS_KEY_ID" in (caught.value.hint or "")


def test_a_profile_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(SourceFailed) as caught:
        presign("s3://a-bucket/key", AWS)
    assert not caught.value.retryable


def test_no_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(SourceFailed) as caught:
        presign("s3://a-bucket/key", AWS)
    assert caught.value.hint == "pip install boto3"
