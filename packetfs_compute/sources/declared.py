"""The CRC-32C that a store itself declares of an object: GCS does of every one, S3 of those that were uploaded with one.

Only a checksum of the whole object's bytes can be compared with a computed one. S3's composite checksums are made of those
of an upload's parts, and are told apart; so is a GCS object that is stored compressed and handed out otherwise.
"""

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import ForbiddenSource
from packetfs_compute.presigned import is_presigned
from packetfs_compute.settings import Settings
from packetfs_compute.sources.guard import scheme_of
from packetfs_compute.sources.http import HttpSource
from packetfs_compute.sources.http1 import Head
from packetfs_compute.sources.s3 import presign
from packetfs_compute.validation import show

__all__ = ["Declared", "declared", "declared_by"]

_MODE: Final = "x-amz-checksum-mode"


@dataclass(frozen=True, slots=True)
class Declared:
    """What a store says of an object. ``crc32c`` ``None``: nothing that can be compared, and ``why`` says so."""

    crc32c: int | None
    why: str | None = None
    object_size: int | None = None
    etag: str | None = None
    """The version that it is said of: its strong ETag."""


def declared(url: str, deadline: Deadline, settings: Settings) -> Declared:
    """Ask the store of the object at ``url`` what it declares; none of the object is read.

    Raises the :class:`~packetfs_compute.errors.JobError` of an object that cannot be read. A local file declares nothing.
    """
    scheme = "file" if url.startswith("/") else scheme_of(url)
    if scheme == "file":
        return Declared(None, "a local file declares no checksum")
    if scheme not in ("http", "https", "s3"):
        raise ForbiddenSource(f"the scheme {show(scheme)} is not open to sources", {"field": "source"})
    signed = presign(url, settings, checksums=True)
    # S3 refuses a presigned URL with x-amz- fields that were not signed.
    asks = not is_presigned(signed) or _MODE in signed.lower()
    head, plan = _source(settings).head(signed, deadline, [(_MODE, "ENABLED")] if asks else [])
    crc32c, why = declared_by(head)
    return Declared(crc32c, why, plan.object_size, plan.etag)


def declared_by(head: Head) -> tuple[int | None, str | None]:
    """Return the CRC-32C of the whole object that an answer's head declares; or ``None``, and why there is none."""
    said = [*_google(head), *head.all("x-amz-checksum-crc32c")]
    if not said:
        return None, "the store declares no crc32c"
    if (head.one("x-amz-checksum-type") or "").upper() == "COMPOSITE" or any("-" in value for value in said):
        return (
            None,
            "the store declares a composite crc32c, of the upload's parts, which is not that of the object's bytes",
        )
    coding = (head.one("x-goog-stored-content-encoding") or "identity").lower()
    if coding != "identity":
        return None, f"the store declares the crc32c of what it stores ({show(coding)}), and hands out other bytes"
    values = set(map(_decoded, said))
    if len(values) > 1 or None in values:
        return None, f"the store declares the crc32c {show(', '.join(said))}, which is none"
    return values.pop(), None


def _google(head: Head) -> Iterator[str]:
    for field in head.all("x-goog-hash"):
        for item in field.split(","):
            name, _, value = item.strip().partition("=")
            if name.lower() == "crc32c":
                yield value


def _decoded(text: str) -> int | None:
    """Return the number in base64's four bytes, the first of which is the highest."""
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    return int.from_bytes(raw) if len(raw) == 4 else None


@lru_cache(maxsize=4)
def _source(settings: Settings) -> HttpSource:
    """Return one source for equal settings, so that its idle connections are found again."""
    return HttpSource(settings)
