"""Presigned URLs: which part of one names the object, and which says only who may read it, and until when.

Every signature of one object is another URL, so that whatever is kept by URL must be kept by the part that stays. Only
what a known scheme adds is taken away, and only where its own signature shows that it was at work. Nothing is decoded.
"""

from typing import Final

__all__ = ["canonical_url", "is_presigned"]

_SIGNERS: Final = (
    (
        frozenset({"x-amz-signature"}),
        frozenset({"x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-expires", "x-amz-security-token",
                   "x-amz-signature", "x-amz-signedheaders"}),
    ),
    (
        frozenset({"x-goog-signature"}),
        frozenset({"x-goog-algorithm", "x-goog-credential", "x-goog-date", "x-goog-expires", "x-goog-signature",
                   "x-goog-signedheaders"}),
    ),
    (
        frozenset({"signature", "awsaccesskeyid"}),
        frozenset({"awsaccesskeyid", "expires", "signature", "x-amz-security-token"}),
    ),
    (frozenset({"signature", "googleaccessid"}), frozenset({"expires", "googleaccessid", "signature"})),
)  # fmt: skip
"""What marks a presigned URL (AWS SigV4, GCS V4, AWS V2, GCS V2), and the parameters that then say nothing of the object."""


_SIGNATURES: Final = frozenset({"x-amz-signature", "x-goog-signature", "signature", "sig"})
"""Parameters that are a signature: those above, CloudFront's, and those of Azure's shared access signatures."""


def is_presigned(url: str) -> bool:
    """Return whether whoever has ``url`` may read what it names, as far as its parameters show."""
    query = url.partition("#")[0].partition("?")[2]
    return any(parameter.partition("=")[0].lower() in _SIGNATURES for parameter in query.split("&"))


def canonical_url(url: str) -> str:
    """Return ``url`` without its fragment and the parameters of presigning: the same for every signature of one object."""
    base, _, query = url.partition("#")[0].partition("?")
    scheme, colon, rest = base.partition("://")
    authority, slash, path = rest.partition("/")
    parameters = [(parameter.partition("=")[0].lower(), parameter) for parameter in query.split("&") if parameter]
    names = {name for name, _ in parameters}
    dropped = frozenset().union(*(names_of for marks, names_of in _SIGNERS if marks <= names))
    kept = "&".join(parameter for name, parameter in parameters if name not in dropped)
    return f"{scheme.lower()}{colon}{authority.lower()}{slash}{path}" + (f"?{kept}" if kept else "")
