"""URLs that no source may be at: every spelling that was found to get past other guards, and a few that must work."""

from typing import Final

__all__ = ["CONFUSING", "IPV4", "IPV4_SPELLINGS", "IPV6", "NAMES", "PORTS", "SCHEMES", "WORKING", "forbidden_urls"]

IPV4: Final = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "127.0.0.1",
    "127.1.2.3", "168.63.129.16", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255",
    "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "203.0.113.7", "224.0.0.1",
    "240.0.0.1", "255.255.255.255",
]  # fmt: skip

IPV4_SPELLINGS: Final = [
    "2130706433", "0x7f000001", "017700000001", "127.1", "127.0.1", "0x7f.1", "0177.0.0.1",
    "0x7f.0x0.0x0.0x1", "127.0.0.01", "00127.0.0.1", "127.0.0.1.", "127.0.0.0x1", "0", "0xa9fea9fe",
    "1.2.3.4.5",
]  # fmt: skip

IPV6: Final = [
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1", "::ffff:100.64.0.1",
    "::ffff:8.8.8.8", "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::8.8.8.8", "64:ff9b:1::a00:1",
    "100::1", "2001::1", "2001:0:4136:e378::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::1",
    "2002:808:808::1", "2620:4f:8000::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fdaa::3",
    "fe80::1", "fec0::1", "ff02::1",
]  # fmt: skip

NAMES: Final = [
    "localhost", "LOCALHOST", "localhost.", "foo.localhost", "localhost.localdomain", "intranet",
    "metadata", "metadata.google.internal", "metadata.google.internal.", "a.internal", "printer.local",
    "top1.nearest.of.app.internal", "app.flycast", "db.default.svc", "db.default.svc.cluster.local",
    "router.lan", "nas.home", "router.home.arpa",
]  # fmt: skip

CONFUSING: Final = [
    "http://example.com@127.0.0.1/",
    "http://127.0.0.1@example.com/",
    "http://user:pass@example.com/",
    "http://@example.com/",
    "http://example.com\\@127.0.0.1/",
    "http://example.com\\.127.0.0.1/",
    "http://127.0.0.1%00.example.com/",
    "http://%31%32%37.0.0.1/",
    "http://example.com%2f@127.0.0.1/",
    "http://example.com:80:80/",
    "http://example.com:080/",
    "http://example.com:0/",
    "http://example.com:65536/",
    "http://example.com:/",
    "http://exa\tmple.com/",
    "http://example.com/\r\nHost: 127.0.0.1",
    " http://example.com/",
    "http://[::1/",
    "http://[fe80::1%25eth0]/",
    "http:/127.0.0.1/",
    "http://①②⑦.0.0.1/",
]

SCHEMES: Final = [
    "file:///etc/passwd", "ftp://example.com/", "gopher://example.com:6379/_INFO", "data:,hello",
    "javascript:alert(1)", "dict://example.com:11211/", "ldap://example.com/", "jar:http://example.com!/",
    "ws://example.com/", "unix:///var/run/docker.sock", "HTTPX://example.com/",
]  # fmt: skip

PORTS: Final = [22, 25, 6379, 9200, 2375]

WORKING: Final = [
    ("http://example.com", "example.com", 80, "/"),
    ("https://EXAMPLE.com/a/b?c=d#e", "example.com", 443, "/a/b?c=d"),
    ("https://example.com.?x", "example.com", 443, "/?x"),
    ("http://example.com:8080/", "example.com", 8080, "/"),
    ("https://example.com:8443/a%20b/../c", "example.com", 8443, "/a%20b/../c"),
    ("http://93.184.216.34/", "93.184.216.34", 80, "/"),
    ("http://[2606:4700:4700:0:0::1111]/", "2606:4700:4700::1111", 80, "/"),
    ("https://my_bucket.s3.eu-west-1.amazonaws.com/k", "my_bucket.s3.eu-west-1.amazonaws.com", 443, "/k"),
]


def forbidden_urls() -> list[str]:
    """Return URLs of which each must be refused as ``forbidden_source`` (or as no URL), before any byte is sent."""
    hosts = [*IPV4, *IPV4_SPELLINGS, *(f"[{address}]" for address in IPV6), *NAMES]
    return [
        *(f"http://{host}/" for host in hosts),
        *(f"https://{host}:8443/x" for host in hosts),
        *SCHEMES,
        *(f"http://example.com:{port}/" for port in PORTS),
    ]
