"""The address guard's decisions: what no request may reach, in every spelling that was found to get past others."""

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.reading import LOOPBACK

from packetfs_compute.conform.hostile import CONFUSING, IPV4, IPV4_SPELLINGS, IPV6, NAMES, PORTS, SCHEMES, WORKING
from packetfs_compute.errors import BadProgram, ForbiddenSource
from packetfs_compute.settings import Settings
from packetfs_compute.sources.guard import check_addresses, check_url, is_public

DEFAULT = Settings()


@pytest.mark.parametrize(
    ("group", "count"),
    [
        (IPV4, 22),
        (IPV4_SPELLINGS, 15),
        (IPV6, 28),
        (NAMES, 18),
        (CONFUSING, 21),
        (SCHEMES, 11),
        (PORTS, 5),
        (WORKING, 8),
    ],
)
def test_no_case_is_lost(group: list[object], count: int) -> None:
    """Two more names, with public and private addresses, and the redirects are in ``test_http_guard.py``."""
    assert len({str(case) for case in group}) == count


@pytest.mark.parametrize("host", [*IPV4, *IPV4_SPELLINGS, *(f"[{address}]" for address in IPV6), *NAMES])
@pytest.mark.parametrize("form", ["http://{}/", "https://{}:8443/x"])
def test_closed_hosts_are_forbidden_without_a_look_up(host: str, form: str) -> None:
    with pytest.raises(ForbiddenSource):
        check_url(form.format(host), DEFAULT)


@pytest.mark.parametrize("url", CONFUSING)
def test_what_parsers_read_differently_is_no_url(url: str) -> None:
    with pytest.raises(BadProgram) as caught:
        check_url(url, DEFAULT)
    assert caught.value.details["field"] == "program.data_url"
    assert caught.value.hint


@pytest.mark.parametrize("url", SCHEMES)
def test_other_schemes_are_forbidden(url: str) -> None:
    with pytest.raises(ForbiddenSource):
        check_url(url, DEFAULT)


@pytest.mark.parametrize("port", PORTS)
def test_other_ports_are_forbidden_until_settings_open_them(port: int) -> None:
    url = f"http://example.com:{port}/"
    with pytest.raises(ForbiddenSource, match=str(port)):
        check_url(url, DEFAULT)
    assert check_url(url, replace(DEFAULT, source_ports=(port,))).port == port


@pytest.mark.parametrize(("url", "host", "port", "path"), WORKING)
def test_public_urls_pass(url: str, host: str, port: int, path: str) -> None:
    target = check_url(url, DEFAULT)
    assert (target.host, target.port, target.path, target.reserve) == (host, port, path, None)


@pytest.mark.parametrize(
    "url", ["", "example.com", "//example.com/", "http:", "http://", "http:///path", "http://:80/", "http://a..com/",
            "http://-a.com/", "http://.com/", "http://./", "http://" + "a" * 64 + ".com/", "http://[v1.x]/",
            "http://ex!mple.com/", "http://example.com/é", "http://example.com/" + "x" * 2048]
)  # fmt: skip
def test_text_that_is_no_url(url: str) -> None:
    with pytest.raises(BadProgram):
        check_url(url, DEFAULT)


def test_an_allowed_network_is_open_on_any_port() -> None:
    settings = replace(DEFAULT, allow_private_sources=LOOPBACK)
    for url in ("http://127.0.0.1:6379/", "http://127.9.9.9/", "http://[::1]:1234/", "http://localhost:5000/"):
        check_url(url, settings)
    for url in ("http://10.0.0.1/", "http://[::ffff:127.0.0.1]/", "http://0x7f000001/", "http://93.184.216.34:22/"):
        with pytest.raises(ForbiddenSource):
            check_url(url, settings)


def check(url: str, settings: Settings, *addresses: str) -> None:
    check_addresses(check_url(url, settings), map(ipaddress.ip_address, addresses), settings)


def test_every_address_of_a_name_must_be_open() -> None:
    settings = replace(DEFAULT, allow_private_sources=LOOPBACK)
    check("http://example.com/", settings, "93.184.216.34", "2606:4700::1111")
    check("http://example.com/", settings, "93.184.216.34", "127.0.0.1")
    for addresses in (["93.184.216.34", "10.0.0.1"], ["::ffff:127.0.0.1", "93.184.216.34"]):
        with pytest.raises(ForbiddenSource):
            check("http://example.com/", settings, *addresses)


@pytest.mark.parametrize("url", ["http://localhost/", "http://a.internal/", "http://example.com:6379/"])
def test_an_odd_name_or_port_is_open_only_to_allowed_networks(url: str) -> None:
    settings = replace(DEFAULT, allow_private_sources=LOOPBACK)
    check(url, settings, "127.0.0.1", "::1")
    for addresses in (["93.184.216.34"], ["127.0.0.1", "93.184.216.34"], ["10.0.0.1"]):
        with pytest.raises(ForbiddenSource):
            check(url, settings, *addresses)


@pytest.mark.parametrize(
    ("url", "host"),
    [("http://example.com/", "example.com"), ("https://example.com:443/", "example.com"),
     ("http://example.com:443/", "example.com:443"), ("http://[2606:4700::1]:8080/", "[2606:4700::1]:8080")],
)  # fmt: skip
def test_the_host_field_names_an_unusual_port(url: str, host: str) -> None:
    assert check_url(url, DEFAULT).host_header == host


def test_an_address_with_a_zone_is_no_public_one() -> None:
    assert is_public(ipaddress.ip_address("2606:4700::1111"))
    assert not is_public(ipaddress.ip_address("2606:4700::1111%eth0"))


@given(st.ip_addresses(v=4))
def test_public_ipv4_is_what_the_registry_calls_global_and_more(address: ipaddress.IPv4Address) -> None:
    """Against the standard library, which knows the registry but not all of what else is unreachable."""
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast
    elif address.is_global and not address.is_multicast:
        more = ("168.63.129.16/32", "192.0.0.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24",
                "192.175.48.0/24")  # fmt: skip
        assert any(address in ipaddress.ip_network(network) for network in more)


@given(st.ip_addresses(v=6) | st.integers(0x2000 << 112, (0x4000 << 112) - 1).map(ipaddress.IPv6Address))
def test_public_ipv6_is_global_unicast_less_the_registry(address: ipaddress.IPv6Address) -> None:
    if is_public(address):
        assert address.is_global
        assert int(address) >> 125 == 1
        assert address.ipv4_mapped is address.sixtofour is address.teredo is None
    elif int(address) >> 125 == 1:
        top = int(address) >> 96
        assert (
            top >> 9 == 0x20010000 >> 9
            or top == 0x20010DB8
            or top >> 16 == 0x2002
            or int(address) >> 80 == 0x2620004F8000
            or top >> 12 == 0x3FFF0
        )


@given(st.text(max_size=60) | st.from_regex(r"https?://[!-~]{0,40}", fullmatch=True))
def test_any_text_passes_or_is_refused_by_type(text: str) -> None:
    try:
        target = check_url(text, DEFAULT)
    except (BadProgram, ForbiddenSource):
        return
    assert target.reserve is None
    assert target.address is None or is_public(target.address)
    assert set(map(ord, target.host + target.path)) <= set(range(0x21, 0x7F))
