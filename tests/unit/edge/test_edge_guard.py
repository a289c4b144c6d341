"""The core's guard beside Python's, which is the stricter reader of the two: text, addresses, names, settings."""

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.edge import Edge, Refused
from support.reading import LOOPBACK
from support.untrusted import patient

from packetfs_compute.conform.hostile import CONFUSING, IPV4, IPV4_SPELLINGS, IPV6, NAMES, WORKING, forbidden_urls
from packetfs_compute.errors import BadProgram, ConfigurationError, ForbiddenSource, JobError
from packetfs_compute.presigned import canonical_url
from packetfs_compute.settings import Settings, load_settings
from packetfs_compute.sources.guard import check_url, is_public

pytestmark = pytest.mark.integration

DEFAULT = Settings()
OPENED: list[tuple[Settings, dict[str, str]]] = [
    (DEFAULT, {}),
    (replace(DEFAULT, allow_private_sources=LOOPBACK), {"PACKETFS_ALLOW_PRIVATE_SOURCES": "127.0.0.0/8, ::1/128"}),
    (
        replace(DEFAULT, allow_private_sources=(ipaddress.ip_network("10.0.0.0/9"),), source_ports=(9000, 9001)),
        {"PACKETFS_ALLOW_PRIVATE_SOURCES": "10.0.0.0/9", "PACKETFS_SOURCE_PORTS": "9000,9001"},
    ),
]


def wanted(url: str, settings: Settings) -> str:
    """Return what the core must say: what Python says, but that it resolves no names and so takes no reserved one."""
    try:
        target = check_url(url, settings)
    except JobError as error:
        return error.type
    local = target.host == "localhost" or target.host.endswith(".localhost")
    if target.address is None and target.reserve is not None:
        opened = set(LOOPBACK) & set(settings.allow_private_sources)
        return "ok" if local and opened else ForbiddenSource.type
    return "ok"


def compare(edge: Edge, urls: list[str]) -> set[str]:
    """Hold every URL to what it must be under all of ``OPENED``; return the kinds of verdict that there were."""
    seen = set()
    for settings, variables in OPENED:
        outcomes = edge.calls([("url", url, variables) for url in urls])
        for url, outcome in zip(urls, outcomes, strict=True):
            found = "ok" if outcome.error is None else outcome.error.type
            assert found == wanted(url, settings), (url, settings)
            if outcome.error is not None:
                assert outcome.error.field == "program.data_url"
                assert outcome.error.details["hint"]
            seen.add(found)
    return seen


def test_the_hostile_and_the_working(edge: Edge) -> None:
    urls = [*forbidden_urls(), *CONFUSING, *(url for url, *_ in WORKING), "", "/etc/passwd", "s3://bucket/key", "\x00"]
    assert compare(edge, urls) == {"ok", BadProgram.type, ForbiddenSource.type}
    for url, outcome in zip(forbidden_urls(), edge.calls([("url", url, {}) for url in forbidden_urls()]), strict=True):
        assert outcome.error is not None, url


def test_private_names_need_an_opened_loopback(edge: Edge) -> None:
    opened = OPENED[1][1]
    for url in ("http://localhost:5000/", "http://a.localhost/", "http://127.0.0.1:6379/", "http://[::1]:1/"):
        assert edge.call("url", url, opened)["url"] == url
    for url in ("http://metadata/", "http://a.internal/", "http://example.com:6379/", "http://localhost.localdomain/"):
        with pytest.raises(Refused) as caught:
            edge.call("url", url, opened)
        assert caught.value.type == ForbiddenSource.type


@pytest.mark.parametrize(("url", "host", "port", "_path"), WORKING)
def test_what_a_good_url_is_taken_for(edge: Edge, url: str, host: str, port: int, _path: str) -> None:
    found = edge.call("url", url, {})
    assert found["port"] == port
    assert found["scheme"] == url.partition(":")[0]
    if ":" in host:
        assert ipaddress.ip_address(found["host"]) == ipaddress.ip_address(host)
    else:
        assert found["host"] == host


ALPHABET = "hftps:/@.%?#[]\\0123456789abcdefxAZ-_ \t\n\x00é①،~"
HOSTS = [*IPV4, *IPV4_SPELLINGS, *(f"[{address}]" for address in IPV6), *NAMES, "example.com", "93.184.216.34", "a.b"]


@st.composite
def mutated(draw: st.DrawFn) -> str:
    url = draw(
        st.sampled_from([*forbidden_urls(), *CONFUSING, *(url for url, *_ in WORKING)])
        | st.builds(
            "{}://{}{}/{}".format,
            st.sampled_from(["http", "https", "HTTP", "ftp"]),
            st.sampled_from(HOSTS),
            st.sampled_from(["", ":80", ":8443", ":9000", ":22", ":0", ":65536", ":00080", "."]),
            st.text(ALPHABET, max_size=8),
        )
    )
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(url)))
        cut = draw(st.integers(0, 2))
        url = url[:at] + draw(st.text(ALPHABET, max_size=2)) + url[at + cut :]
    return url


@patient
@given(urls=st.lists(mutated() | st.text(max_size=40), min_size=10, max_size=40))
def test_random_urls(edge: Edge, urls: list[str]) -> None:
    compare(edge, urls)


ADDRESSES = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.integers(0x2000 << 112, (0x4000 << 112) - 1).map(lambda value: str(ipaddress.IPv6Address(value))),
    st.text("0123456789abcdefABCDEF:.", max_size=24),
    st.lists(st.sampled_from(["0", "1", "ffff", "00001", "", "g", "1.2.3.4", "01.2.3.4"]), max_size=10).map(":".join),
)


@example(texts=["1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "1::2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8:9"])
@example(
    texts=["1::2::3", ":::", "::", ":1", "1:", "1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:7:1.2.3.4", "1.2.3.4::", "::1.2.3"]
)
@patient
@given(texts=st.lists(ADDRESSES, min_size=10, max_size=40))
def test_addresses_are_read_and_judged_alike(edge: Edge, texts: list[str]) -> None:
    for text, outcome in zip(texts, edge.calls([("address", text) for text in texts]), strict=True):
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            assert outcome.value is None, text
        else:
            expected = {"version": address.version, "value": str(int(address)), "public": is_public(address)}
            assert outcome.value == expected, text


URL_PARTS = st.lists(
    st.sampled_from(
        ["X-Amz-Signature=a", "x-amz-date=b", "X-Amz-Expires=3", "Signature=c", "AWSAccessKeyId=d", "Expires=4", "a=b",
         "GoogleAccessId=e", "X-Goog-Signature=f", "X-Goog-Date=g", "", "=", "versionId=1", "signature"]
    ),
    max_size=6,
)  # fmt: skip


@patient
@given(st.sampled_from(["https://Host.Example/Path", "HTTP://h:80", "https://h/a?", "no url", "a//b://c/D", ""]), URL_PARTS,
       st.sampled_from(["", "#fragment?x", "#"]))  # fmt: skip
def test_presigned_urls_name_the_same_object(edge: Edge, base: str, parameters: list[str], fragment: str) -> None:
    url = base + ("?" + "&".join(parameters) if parameters else "") + fragment
    assert edge.call("canonical", url) == canonical_url(url)


VALUES: dict[str, list[str]] = {
    "PACKETFS_SIGNING_KEYS": ["k1:0123456789abcdef", "k1:0123456789abcdef,k2:fedcba9876543210", "k1", "k1:short",
                              "k 1:0123456789abcdef", "k1:with:colons:in:it:x", " k1:0123456789abcdef ", ","],
    "PACKETFS_ALLOW_UNSIGNED": ["1", "0", "true", "FALSE", "yes", "2"],
    "PACKETFS_ALLOW_PRIVATE_SOURCES": ["127.0.0.0/8", "127.0.0.1/8", "::1/128,10.0.0.0/8", "::/0", "1.2.3.4", "x",
                                       "1.2.3.4/33"],
    "PACKETFS_SOURCE_PORTS": ["1,65535", "0", "65536", "9000, 9001", "a"],
    "PACKETFS_STALL_TIMEOUT_S": ["0.1", "600", "0.05", "601", "30", "nan", "inf", "1.5"],
    "PACKETFS_MAX_SKIP_BYTES": ["0", "1099511627776", "1099511627777", "-1", "1.5"],
    "PACKETFS_MAX_CONCURRENCY": ["1", "10000", "0", "10001", "x"],
}  # fmt: skip


def python_reads(variables: dict[str, str]) -> Settings | ConfigurationError:
    try:
        return load_settings(variables)
    except ConfigurationError as error:
        return error


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in VALUES.items() for value in values])
def test_settings_are_read_alike(edge: Edge, name: str, value: str) -> None:
    found = edge.call("settings", {"PACKETFS_ALLOW_UNSIGNED": "1", name: value})
    settings = python_reads({name: value, "PACKETFS_CONFIG": "/dev/null"})
    if isinstance(settings, ConfigurationError):
        assert found["fault"]["field"] == settings.details["field"] == name
        assert found["fault"]["hint"] == settings.hint
        assert not (name == "PACKETFS_SIGNING_KEYS" and value.strip() in str(found["fault"]))
        return
    if name == "PACKETFS_ALLOW_UNSIGNED" and not settings.allow_unsigned:
        assert found["fault"]["field"] == "PACKETFS_SIGNING_KEYS"
    else:
        assert found["fault"] is None
    assert [f"{key['id']}:{key['secret']}" for key in found["signingKeys"]] == list(settings.signing_keys)
    assert len(found["allowPrivateSources"]) == len(settings.allow_private_sources)
    assert found["sourcePorts"] == list(settings.source_ports)
    assert found["stallTimeoutMs"] == settings.stall_timeout_s * 1000
    assert found["maxSkipBytes"] == settings.max_skip_bytes
    assert found["maxConcurrency"] == settings.max_concurrency


def test_the_same_defaults(edge: Edge) -> None:
    found = edge.call("settings", {})
    assert found["stallTimeoutMs"] == DEFAULT.stall_timeout_s * 1000
    assert (found["maxSkipBytes"], found["maxConcurrency"]) == (DEFAULT.max_skip_bytes, DEFAULT.max_concurrency)
    assert found["fault"]["field"] == "PACKETFS_SIGNING_KEYS"


@pytest.mark.parametrize("value", ["x" * 65, "a\nb", "é"])
def test_a_region_that_answers_could_not_name(edge: Edge, value: str) -> None:
    assert edge.call("settings", {"PACKETFS_REGION": value})["fault"]["field"] == "PACKETFS_REGION"


def test_two_keys_of_one_id(edge: Edge) -> None:
    keys = "k1:0123456789abcdef,k1:fedcba9876543210"
    assert edge.call("settings", {"PACKETFS_SIGNING_KEYS": keys})["fault"]["field"] == "PACKETFS_SIGNING_KEYS"
