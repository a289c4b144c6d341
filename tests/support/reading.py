"""Reading a whole range in a test."""

import ipaddress
from dataclasses import dataclass, replace

from packetfs_compute.conform.misbehaviour import DATA
from packetfs_compute.deadline import Deadline
from packetfs_compute.settings import Settings
from packetfs_compute.sources import RangeRequest, Source

__all__ = ["DATA", "LOOPBACK", "OPEN", "Read", "read"]

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))

OPEN = replace(Settings(), allow_private_sources=LOOPBACK)
"""Settings under which servers on this machine may be read."""


@dataclass(frozen=True)
class Read:
    """What a stream gave."""

    data: bytes
    object_size: int | None
    etag: str | None


def read(source: Source, request: RangeRequest, budget_s: float = 10.0) -> Read:
    """Open a range and read it to its end, copying each chunk before the next one is asked for."""
    with source.open(request, Deadline.after(budget_s)) as stream:
        data = b"".join(bytes(chunk) for chunk in stream)
        return Read(data, stream.object_size, stream.etag)
