"""Objects in S3 and its like, as ``s3://bucket/key``.

An ``s3://`` URL becomes a presigned https one (SigV4) where the keys are, at dispatch; from then on it is a plain HTTP
source, so that every substrate can read it and no key leaves the dispatcher. The key is what follows the bucket's
slash, taken literally: ``s3://b/a key+%é?#`` names the object ``a key+%é?#``, and nothing in it is decoded.

boto3 is imported on first use: Lambda has it, other places may not.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import SourceFailed
from packetfs_compute.names import MAX_URL_CHARS
from packetfs_compute.settings import Settings
from packetfs_compute.sources.base import ByteStream, RangeRequest
from packetfs_compute.sources.http import HttpSource
from packetfs_compute.sources.late import IMPORTING
from packetfs_compute.validation import bad, show

__all__ = ["S3Source", "presign"]

_FIELD: Final = "program.data_url"
_URL: Final = re.compile(r"s3://([^/]*)(?:/(.*))?", re.DOTALL | re.IGNORECASE)
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_MAX_KEY_BYTES: Final = 1024
_EXPIRES_S: Final = 3600


class S3Source:
    """Objects at s3:// URLs: presign, then read over HTTP, by the same guard."""

    def __init__(self, settings: Settings, http: HttpSource | None = None) -> None:
        self._settings = settings
        self._http = http or HttpSource(settings)

    def open(self, request: RangeRequest, deadline: Deadline) -> ByteStream:
        """Open a range; see :class:`~packetfs_compute.sources.base.Source`."""
        url = presign(request.url, self._settings)
        return self._http.open(RangeRequest(url, request.offset, request.length, request.etag), deadline)

    def close(self) -> None:
        """Close the idle connections; the source may still be used."""
        self._http.close()


def presign(url: str, settings: Settings, *, checksums: bool = False) -> str:
    """Return an https URL that reads the object at ``url`` for an hour; any URL but an s3:// one is returned as it is.

    ``checksums``: it is good only with the field ``x-amz-checksum-mode: ENABLED``, which asks for what S3 knows of them.
    Raises :class:`BadProgram` for a malformed URL, :class:`SourceFailed` where there are no credentials or no boto3.
    """
    if not url.lower().startswith("s3:"):
        return url
    bucket, key = _parse(url)
    with IMPORTING:
        sign = _signer(settings.s3_endpoint_url, settings.s3_region)
    signed = sign({"Bucket": bucket, "Key": key, **({"ChecksumMode": "ENABLED"} if checksums else {})})
    if len(signed) > MAX_URL_CHARS:
        problem = f"has a key whose signed URL is {len(signed)} characters long"
        raise bad(_FIELD, problem, f"at most {MAX_URL_CHARS} are read; a shorter key, or credentials without a token")
    return signed


def _parse(url: str) -> tuple[str, str]:
    match = _URL.fullmatch(url)
    if match is None or not match[2]:
        raise bad(_FIELD, f"is {show(url)}", "write s3://bucket/key")
    if not _BUCKET.fullmatch(match[1]) or ".." in match[1]:
        raise bad(_FIELD, f"has the bucket {show(match[1])}", "give 3 to 63 lower-case letters, digits, dots, hyphens")
    try:
        size = len(match[2].encode("utf-8"))
    except UnicodeEncodeError:
        raise bad(_FIELD, "has a key that is not Unicode text", "write the key in UTF-8") from None
    if size > _MAX_KEY_BYTES:
        raise bad(_FIELD, f"has a key of {size} bytes", f"S3 allows at most {_MAX_KEY_BYTES}")
    return match[1], match[2]


@lru_cache(maxsize=8)
def _signer(endpoint_url: str | None, region: str | None) -> Callable[[dict[str, str]], str]:
    """Return the function from what GetObject is told, bucket and key above all, to a presigned URL.

    Its client may be shared between threads; the client's session may not, and belongs to it alone.
    """
    try:
        import boto3  # noqa: PLC0415  (an optional and slow import)
        from botocore import exceptions  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415
    except ImportError as error:
        hint = "pip install boto3"
        raise SourceFailed("s3:// needs boto3, which is not installed", {"retryable": False, "hint": hint}) from error
    try:
        client = boto3.session.Session().client(
            "s3", endpoint_url=endpoint_url, region_name=region, config=Config(signature_version="s3v4")
        )
    except (exceptions.BotoCoreError, ValueError) as error:
        hint = "check PACKETFS_S3_ENDPOINT_URL, PACKETFS_S3_REGION and AWS_PROFILE"
        raise SourceFailed(f"no S3 client: {error}", {"retryable": False, "hint": hint}) from error

    def sign(where: dict[str, str]) -> str:
        try:
            return str(client.generate_presigned_url("get_object", Params=where, ExpiresIn=_EXPIRES_S))
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
            hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, where jobs are dispatched"
            raise SourceFailed("there are no credentials for s3://", {"retryable": False, "hint": hint}) from error
        except (exceptions.BotoCoreError, exceptions.ClientError) as error:
            raise SourceFailed(f"s3:// cannot be signed: {error}", {"retryable": False}) from error

    return sign
