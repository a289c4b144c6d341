"""What it costs that bytes leave their source: by where the source stands, told from its URL, and where they go.

A rule names hosts, a price to the internet, and the provider (and region) whose own places pay nothing. The first rule
that fits decides; those of the settings come before the ones here. A host that no rule knows costs nothing: its egress
is not on the caller's bill, or unknown. Prices are list prices of the first tier, USD a GB (10**9 bytes), 2026-11.
"""

import functools
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from packetfs_compute.places import EgressRule
from packetfs_compute.routing.capabilities import Capabilities

__all__ = ["FREE", "Locality", "locality", "usd_per_byte"]


@dataclass(frozen=True, slots=True)
class Locality:
    """Where a source stands, and what a byte from it costs everywhere but at home."""

    usd_per_gb: float
    provider: str | None
    region: str | None


FREE: Final = Locality(0.0, None, None)

_AWS_USD_PER_GB: Final = 0.09
_DEFAULT_S3_REGION: Final = "us-east-1"

_AUTHORITY_ENDS: Final = re.compile(r"[/?#]")
_S3_HOST: Final = re.compile(
    r"(?:.+\.)?s3(?:-(?:accelerate|accesspoint|fips|website))?(?:\.dualstack)?(?:[.-]([a-z]{2}(?:-[a-z]+)+-[0-9]))?"
    r"\.amazonaws\.com(?:\.cn)?"
)
"""Virtual-hosted, path-style, dual-stack and the old dashed form of S3's hosts; the region where it stands in them."""

_KNOWN: Final = (
    EgressRule("*.r2.cloudflarestorage.com", 0.0, "cloudflare"),
    EgressRule("*.r2.dev", 0.0, "cloudflare"),
    EgressRule("storage.googleapis.com", 0.12, "gcp"),
    EgressRule("*.storage.googleapis.com", 0.12, "gcp"),
    EgressRule("*.blob.core.windows.net", 0.087, "azure"),
    EgressRule("*.cloudfront.net", 0.085),
    EgressRule("*.backblazeb2.com", 0.01),
    EgressRule("*.fly.storage.tigris.dev", 0.0, "fly"),
)


def locality(
    url: str,
    rules: tuple[EgressRule, ...] = (),
    s3_region: str | None = None,
    s3_endpoint_url: str | None = None,
) -> Locality:
    """Return where the object at ``url`` stands, by ``rules``, then by what the package knows.

    ``s3_region`` and ``s3_endpoint_url`` are those of ``s3://`` URLs, which do not name them.
    """
    scheme, _, rest = url.partition("://")
    if scheme.lower() == "s3":
        return _of_bucket(rest.partition("/")[0], rules, s3_region, s3_endpoint_url)
    return _of_host(_host(rest), rules)


def usd_per_byte(place: Capabilities, source: Locality) -> float:
    """Return what a byte costs on its way from ``source`` to ``place``."""
    at_home = place.provider == source.provider and source.region in (None, place.region)
    return 0.0 if at_home else source.usd_per_gb / 1e9


def _host(rest: str) -> str:
    """Return the host of what follows a URL's ``//``."""
    authority = _AUTHORITY_ENDS.split(rest, maxsplit=1)[0]
    return authority.rpartition("@")[2].partition(":")[0].rstrip(".").lower()


@functools.lru_cache(maxsize=4096)
def _of_bucket(bucket: str, rules: tuple[EgressRule, ...], s3_region: str | None, endpoint: str | None) -> Locality:
    for rule in rules:
        if rule.host.startswith("s3://") and fnmatchcase(bucket, rule.host.removeprefix("s3://")):
            return Locality(rule.usd_per_gb, rule.provider, rule.region)
    if endpoint is not None:  # another store than AWS's
        return _of_host(_host(endpoint.partition("://")[2]), rules)
    return Locality(_AWS_USD_PER_GB, "aws", s3_region or _DEFAULT_S3_REGION)


@functools.lru_cache(maxsize=4096)
def _of_host(host: str, rules: tuple[EgressRule, ...]) -> Locality:
    for rule in rules:
        if _fits(rule.host, host):
            return Locality(rule.usd_per_gb, rule.provider, rule.region)
    match = _S3_HOST.fullmatch(host)
    if match:
        return Locality(_AWS_USD_PER_GB, "aws", match[1] or _DEFAULT_S3_REGION)
    rule_here = next((rule for rule in _KNOWN if _fits(rule.host, host)), None)
    return FREE if rule_here is None else Locality(rule_here.usd_per_gb, rule_here.provider, rule_here.region)


def _fits(pattern: str, host: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern
