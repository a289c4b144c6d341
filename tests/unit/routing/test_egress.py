"""What it costs that bytes leave their source: told from its URL, and free at home."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.untrusted import patient

from packetfs_compute.places import EgressRule
from packetfs_compute.routing import Capabilities, Locality, locality
from packetfs_compute.routing.egress import FREE, usd_per_byte

S3 = 0.09


def aws(region: str) -> Locality:
    return Locality(S3, "aws", region)


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("s3.amazonaws.com", "us-east-1"),
        ("bucket.s3.amazonaws.com", "us-east-1"),
        ("s3.eu-west-1.amazonaws.com", "eu-west-1"),
        ("bucket.s3.eu-west-1.amazonaws.com", "eu-west-1"),
        ("my.dotted.bucket.s3.eu-west-1.amazonaws.com", "eu-west-1"),
        ("s3.bucket.s3.eu-west-1.amazonaws.com", "eu-west-1"),
        ("s3-us-west-2.amazonaws.com", "us-west-2"),
        ("bucket.s3-us-west-2.amazonaws.com", "us-west-2"),
        ("s3.dualstack.ap-southeast-2.amazonaws.com", "ap-southeast-2"),
        ("bucket.s3.dualstack.ap-southeast-2.amazonaws.com", "ap-southeast-2"),
        ("bucket.s3.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("bucket.s3-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("bucket.s3-fips.dualstack.us-east-2.amazonaws.com", "us-east-2"),
        ("bucket.s3-website-eu-west-1.amazonaws.com", "eu-west-1"),
        ("bucket.s3-website.eu-central-1.amazonaws.com", "eu-central-1"),
        ("name-123456789012.s3-accesspoint.us-west-2.amazonaws.com", "us-west-2"),
        ("bucket.s3-accelerate.amazonaws.com", "us-east-1"),
        ("bucket.s3-accelerate.dualstack.amazonaws.com", "us-east-1"),
        ("bucket.s3.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("s3.cn-northwest-1.amazonaws.com.cn", "cn-northwest-1"),
    ],
)
@pytest.mark.parametrize(
    "form",
    ["https://{}/key", "http://{}/bucket/key?x=1", "https://{}:443/key", "https://{}", "https://{}?list", "HTTPS://{}/key",
     "https://user:word@{}/key", "https://{}./key", "https://{}#x"],
)  # fmt: skip
def test_s3_by_its_hosts(host: str, region: str, form: str) -> None:
    assert locality(form.format(host)) == aws(region)
    assert locality(form.format(host.upper())) == aws(region)


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("https://account.r2.cloudflarestorage.com/bucket/key", Locality(0.0, "cloudflare", None)),
        ("https://pub-0123.r2.dev/key", Locality(0.0, "cloudflare", None)),
        ("https://storage.googleapis.com/bucket/key", Locality(0.12, "gcp", None)),
        ("https://bucket.storage.googleapis.com/key", Locality(0.12, "gcp", None)),
        ("https://account.blob.core.windows.net/c/key", Locality(0.087, "azure", None)),
        ("https://d111.cloudfront.net/key", Locality(0.085, None, None)),
        ("https://f001.backblazeb2.com/file/b/key", Locality(0.01, None, None)),
        ("https://b.fly.storage.tigris.dev/key", Locality(0.0, "fly", None)),
    ],
)
def test_others_that_are_known(url: str, source: Locality) -> None:
    assert locality(url) == source


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/s3.amazonaws.com",
        "https://cdn.example.com/?x=@s3.amazonaws.com",
        "https://cdn.example.com?x=@s3.amazonaws.com",
        "https://cdn.example.com#@s3.amazonaws.com",
        "https://s3.amazonaws.com.example.com/key",
        "https://xs3.amazonaws.com/key",
        "https://ec2.amazonaws.com/",
        "https://amazonaws.com/",
        "https://r2.dev/",
        "https://xr2.dev/",
        "https://[2001:db8::1]:443/key",
        "https://203.0.113.1/key",
        "/srv/data/object",
        "object",
        "https://",
        "",
    ],
)
def test_of_any_other_host_nothing_is_known(url: str) -> None:
    assert locality(url) == FREE


class TestRules:
    RULES = (
        EgressRule("a.example.com", 1.0, "aws", "us-east-1"),
        EgressRule("*.example.com", 2.0),
        EgressRule("*.a.example.com", 3.0),
        EgressRule("bucket.s3.amazonaws.com", 0.0, "aws", "eu-west-1"),
        EgressRule("storage.googleapis.com", 0.08),
        EgressRule("s3://mine", 0.5, "own"),
        EgressRule("s3://logs-*", 0.02, "aws", "eu-west-1"),
    )

    @pytest.mark.parametrize(
        ("url", "source"),
        [
            ("https://a.example.com/x", Locality(1.0, "aws", "us-east-1")),
            ("https://A.Example.COM:8443/x", Locality(1.0, "aws", "us-east-1")),
            ("https://b.example.com/x", Locality(2.0, None, None)),
            ("https://c.a.example.com/x", Locality(2.0, None, None)),
            ("https://example.com/x", FREE),
            ("https://badexample.com/x", FREE),
            ("https://bucket.s3.amazonaws.com/x", Locality(0.0, "aws", "eu-west-1")),
            ("https://other.s3.amazonaws.com/x", aws("us-east-1")),
            ("https://storage.googleapis.com/x", Locality(0.08, None, None)),
            ("https://b.storage.googleapis.com/x", Locality(0.12, "gcp", None)),
            ("s3://mine/key", Locality(0.5, "own", None)),
            ("s3://mine2/key", aws("us-east-1")),
            ("s3://logs-2026/key", Locality(0.02, "aws", "eu-west-1")),
            ("s3://old-logs-2026/key", aws("us-east-1")),
            ("https://mine/key", FREE),
        ],
    )
    def test_the_first_that_fits_decides_and_they_come_before_what_is_known(self, url: str, source: Locality) -> None:
        assert locality(url, self.RULES) == source

    def test_a_rule_for_every_bucket(self) -> None:
        assert locality("s3://any.bucket/key", (EgressRule("s3://*", 0.0),)) == FREE


class TestS3Urls:
    @pytest.mark.parametrize("url", ["s3://bucket/key", "S3://bucket/a/b", "s3://bucket", "s3://my.bucket/key"])
    def test_they_are_of_the_region_that_settings_name(self, url: str) -> None:
        assert locality(url) == aws("us-east-1")
        assert locality(url, (), "eu-west-1") == aws("eu-west-1")

    @pytest.mark.parametrize(
        ("endpoint", "source"),
        [
            ("http://127.0.0.1:9000", FREE),
            ("https://minio.example.com", FREE),
            ("https://account.r2.cloudflarestorage.com", Locality(0.0, "cloudflare", None)),
            ("https://storage.googleapis.com", Locality(0.12, "gcp", None)),
            ("https://s3.eu-west-1.amazonaws.com", aws("eu-west-1")),
        ],
    )
    def test_with_an_endpoint_of_ones_own_they_are_there(self, endpoint: str, source: Locality) -> None:
        assert locality("s3://bucket/key", (), "us-east-1", endpoint) == source

    def test_a_rule_for_the_endpoints_host_counts(self) -> None:
        rules = (EgressRule("minio.example.com", 0.03),)
        assert locality("s3://bucket/key", rules, None, "https://minio.example.com:9000") == Locality(0.03, None, None)


def place(provider: str, region: str | None = None) -> Capabilities:
    return Capabilities("x", "own", 128, 1 << 40, 900, frozenset({"https"}), provider=provider, region=region)


@pytest.mark.parametrize(
    ("there", "source", "usd_per_gb"),
    [
        (place("aws", "us-east-1"), aws("us-east-1"), 0.0),
        (place("aws", "eu-west-1"), aws("us-east-1"), S3),
        (place("aws"), aws("us-east-1"), S3),
        (place("cloudflare"), aws("us-east-1"), S3),
        (place("own", "us-east-1"), aws("us-east-1"), S3),
        (place("gcp", "us-central1"), Locality(0.12, "gcp", None), 0.0),
        (place("gcp"), Locality(0.12, "gcp", None), 0.0),
        (place("aws", "us-east-1"), Locality(0.12, "gcp", None), 0.12),
        (place("aws", "us-east-1"), Locality(0.085, None, None), 0.085),
        (place("own"), FREE, 0.0),
        (place("aws"), Locality(0.0, "cloudflare", None), 0.0),
    ],
)
def test_it_is_free_at_home_and_nowhere_else(there: Capabilities, source: Locality, usd_per_gb: float) -> None:
    assert usd_per_byte(there, source) == pytest.approx(usd_per_gb / 1e9)


@patient
@given(st.text() | st.text().map("https://{}".format) | st.text().map("s3://{}".format), st.none() | st.text())
def test_any_url_has_a_locality(url: str, region: str | None) -> None:
    assert locality(url, TestRules.RULES, region).usd_per_gb >= 0
