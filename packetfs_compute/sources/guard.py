"""The address guard: which URLs and which addresses a source may be on.

It exists because the URL comes from a stranger and the request leaves from inside a network (SSRF). Its rules:

1. A URL is checked as text before anything parses it, so that no two parsers can read it differently: ASCII, no
   control character, space or backslash, no user name, no ``%`` in the authority, IPv4 only as a dotted quad.
2. A name is looked up once, *every* address that it has must be allowed, and the connection goes to exactly those
   addresses (``connection.py``), so that a second look-up cannot give another answer.
3. Allowed is what is globally reachable by the IANA special-purpose registries (RFC 6890), on a few ports, under a
   public name. Python's ``is_global`` is not used: among others it calls 192.0.0.192, 168.63.129.16, 224.0.0.1,
   64:ff9b::/96, 2002::/16 and ::ffff:100.64.0.1 global.
4. A network in ``settings.allow_private_sources`` is allowed on any port and under any name. It opens only itself: a
   strange port or name passes when *all* its addresses lie in such networks.

Text that is no usable URL is :class:`BadProgram`; a good URL to a place that is closed is :class:`ForbiddenSource`.
Nothing here does I/O.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from packetfs_compute.errors import ForbiddenSource
from packetfs_compute.names import MAX_URL_CHARS
from packetfs_compute.settings import Settings
from packetfs_compute.validation import bad, show

__all__ = ["Address", "Target", "check_addresses", "check_url", "is_public", "scheme_of"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_FIELD: Final = "program.data_url"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_PORTS: Final = frozenset({80, 443, 8080, 8443})

_PRIVATE_SUFFIXES: Final = frozenset(
    {"alt", "cluster", "corp", "flycast", "home", "home.arpa", "internal", "intranet", "invalid", "lan", "local",
     "localdomain", "localhost", "onion", "private", "svc", "test"}
)  # fmt: skip
"""Names that mean something only inside a network: RFC 6761, 6762, 7686, 8375, 9476, and what platforms use."""

_CLOSED_V4: Final = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; a cloud's metadata service is in it
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host, public by its number only
        "169.254.0.0/16",  # link-local, metadata services
        "172.16.0.0/12",
        "192.0.0.0/24",  # IETF protocol assignments; Oracle's metadata service is 192.0.0.192
        "192.0.2.0/24",
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # automatic multicast tunnelling
        "192.88.99.0/24",  # 6to4 relays, deprecated
        "192.168.0.0/16",
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_OPEN_V6: Final = ipaddress.IPv6Network("2000::/3")
"""All that IANA has given out as global unicast; mapped, NAT64, unique-local, link-local and multicast lie outside."""
_CLOSED_V6: Final = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # IETF protocol assignments: Teredo, ORCHID, benchmarking
        "2001:db8::/32",
        "2002::/16",  # 6to4: holds an IPv4 address
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",
    )
)

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_ALIEN: Final = re.compile(r"[^\x21-\x5b\x5d-\x7e]")
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^#]*)(?:#.*)?", re.DOTALL)
_HOST_PORT: Final = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]*))?")
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that passed: where to connect and what to ask for.

    ``host`` is lower case, without brackets or the root's dot. ``address`` is the host when that is an address.
    ``reserve`` is why the target is open only to addresses in ``allow_private_sources``, or ``None``.
    """

    url: str
    scheme: str
    host: str
    port: int
    path: str
    address: Address | None
    reserve: str | None

    @property
    def host_header(self) -> str:
        """The value of ``Host`` (RFC 9110, section 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def is_public(address: Address) -> bool:
    """Return whether ``address`` is globally reachable unicast, by the IANA special-purpose registries and rule 3."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _CLOSED_V4)
    if address.scope_id is not None:
        return False
    return address in _OPEN_V6 and not any(address in network for network in _CLOSED_V6)


def scheme_of(url: str) -> str:
    """Return the scheme of ``url`` in lower case; raise :class:`BadProgram` when it has none."""
    match = _SCHEME.match(url)
    if match is None:
        raise bad(_FIELD, f"is {show(url)}", "begin it with a scheme, such as https://")
    return match[1].lower()


def check_url(url: str, settings: Settings) -> Target:
    """Return the target of an HTTP URL by rules 1 and 4, without looking anything up.

    Raises :class:`BadProgram` for text that is no URL, :class:`ForbiddenSource` for a place that is closed.
    """
    if len(url) > MAX_URL_CHARS:
        raise bad(_FIELD, f"has {len(url)} characters", f"use at most {MAX_URL_CHARS}")
    alien = _ALIEN.search(url)
    if alien is not None:
        raise bad(
            _FIELD, f"holds {show(alien[0])}", "percent-encode it (RFC 3986, section 2); write a name in punycode"
        )
    scheme = scheme_of(url)
    if scheme not in _DEFAULT_PORTS:
        raise _forbidden(f"the scheme {show(scheme)} is not open to sources", "use https:// or http://")
    match = _URL.fullmatch(url)
    if match is None:
        raise bad(_FIELD, f"is {show(url)}", f"write {scheme}://host/path")
    host, port = _split_authority(match[2], scheme)
    address, name_reserve = _read_host(host)
    reserve = name_reserve or _port_reserve(port, settings)
    target = Target(
        url=url,
        scheme=scheme,
        host=host.strip("[]").lower().removesuffix(".") if address is None else str(address),
        port=port,
        path=match[3] if match[3].startswith("/") else "/" + match[3],
        address=address,
        reserve=reserve,
    )
    if address is not None:
        check_addresses(target, [address], settings)
    elif reserve is not None and not settings.allow_private_sources:
        raise _forbidden(reserve)
    return target


def check_addresses(target: Target, addresses: Iterable[Address], settings: Settings) -> None:
    """Raise :class:`ForbiddenSource` unless every one of ``addresses`` is open to ``target`` (rules 2 to 4)."""
    for address in addresses:
        if any(address in network for network in settings.allow_private_sources):
            continue
        if not is_public(address):
            raise _forbidden(f"{_shown(target, address)} is not a public address")
        if target.reserve is not None:
            raise _forbidden(target.reserve)


def _split_authority(authority: str, scheme: str) -> tuple[str, int]:
    if "@" in authority:
        raise bad(_FIELD, "holds a user name", "leave out what stands before the @; pass secrets in a presigned URL")
    if "%" in authority:
        raise bad(_FIELD, "holds a % in its host", "write the host plainly")
    match = _HOST_PORT.fullmatch(authority)
    if match is None or not match[1]:
        raise bad(_FIELD, f"has the host {show(authority)}", "write a name, a dotted quad or [an IPv6 address]")
    if match[2] is None:
        return match[1], _DEFAULT_PORTS[scheme]
    if not re.fullmatch(r"[1-9][0-9]{0,4}", match[2]) or int(match[2]) > 65535:
        raise bad(_FIELD, f"has the port {show(match[2])}", "give a number from 1 to 65535")
    return match[1], int(match[2])


def _read_host(host: str) -> tuple[Address | None, str | None]:
    """Return the address that ``host`` spells, if any, and why its name is no public one, if so."""
    if host.startswith("["):
        try:
            return ipaddress.IPv6Address(host[1:-1]), None
        except ValueError:
            raise bad(_FIELD, f"has the host {show(host)}", "write an IPv6 address in the brackets") from None
    name = host.lower().removesuffix(".")
    labels = name.split(".")
    # Like WHATWG's "ends in a number": resolvers read 0x7f.1, 127.1, 017700000001 and 2130706433 as addresses.
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return ipaddress.IPv4Address(host), None
        except ValueError:
            raise _forbidden(f"{show(host)} is an IPv4 address in disguise", "write it as a dotted quad") from None
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise bad(_FIELD, f"has the host {show(host)}", "write a host name of letters, digits, hyphens and dots")
    if len(labels) == 1:
        return None, f"{show(name)} is not a public name: it has no dot"
    if labels[-1] in _PRIVATE_SUFFIXES or ".".join(labels[-2:]) in _PRIVATE_SUFFIXES:
        return None, f"{show(name)} is not a public name"
    return None, None


def _port_reserve(port: int, settings: Settings) -> str | None:
    if port in _PORTS or port in settings.source_ports:
        return None
    return f"port {port} is not open to sources"


def _shown(target: Target, address: Address) -> str:
    return str(address) if target.address is not None else f"{target.host} is at {address}, which"


def _forbidden(message: str, hint: str | None = None) -> ForbiddenSource:
    hint = (
        hint or "PACKETFS_ALLOW_PRIVATE_SOURCES opens networks, PACKETFS_SOURCE_PORTS opens ports of public addresses"
    )
    return ForbiddenSource(message, {"field": _FIELD, "hint": hint})
