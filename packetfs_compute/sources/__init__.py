"""Where bytes live: read a byte range over HTTP, from S3 or from a local file, safely and with flat memory.

:func:`open_source` is the way in. ``base.py`` is the contract, ``registry.py`` knows which source reads which scheme,
``guard.py`` decides which addresses are open, ``ranges.py`` what HTTP's answers mean.
"""

from packetfs_compute.sources.base import ByteStream, RangeRequest, Source
from packetfs_compute.sources.registry import open_source
from packetfs_compute.sources.s3 import presign

__all__ = ["ByteStream", "RangeRequest", "Source", "open_source", "presign"]
