"""What AWS does with a request's Signature Version 4 before anything else: see that it is good, or refuse."""

import hashlib
import hmac
import re
import time
from datetime import UTC, datetime
from email.message import Message

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

__all__ = ["Refused", "SigV4"]

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([A-Za-z0-9]+)/([0-9]{8})/([a-z0-9-]+)/([a-z0-9]+)/aws4_request, "
    r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})"
)
_WINDOW_S = 300


class Refused(Exception):
    """A request is not let in; ``code`` is AWS's name of the reason."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


class SigV4:
    """Verifies requests to one service in one region, signed with one key."""

    def __init__(self, key_id: str, secret: str, region: str, service: str) -> None:
        self._key_id, self._region, self._service = key_id, region, service
        self._auth = SigV4Auth(Credentials(key_id, secret), service, region)

    def verify(self, method: str, target: str, fields: Message, body: bytes) -> None:
        """Raise :class:`Refused` for a request that nobody with the key has made so, just now.

        botocore computes what the signature must be; what it must be of is said here.
        """
        given = fields.get_all("Authorization", [])
        match = _AUTHORIZATION.fullmatch(given[0]) if len(given) == 1 else None
        if match is None:
            raise Refused("MissingAuthenticationTokenException", "Missing Authentication Token")
        key_id, day, region, service, names, signature = match.groups()
        if not hmac.compare_digest(key_id, self._key_id):
            raise Refused("UnrecognizedClientException", "The security token included in the request is invalid.")
        moment = fields.get("X-Amz-Date", "")
        if (day, region, service) != (moment[:8], self._region, self._service):
            raise Refused("InvalidSignatureException", "Credential should be scoped to a valid region and service.")
        if abs(_unix(moment) - time.time()) > _WINDOW_S:
            raise Refused("InvalidSignatureException", f"Signature expired: {moment} is not now")
        signed = names.split(";")
        must = {"host", *(name.lower() for name in fields if name.lower().startswith("x-amz-"))}
        if signed != sorted(set(signed)) or not must <= set(signed):
            raise Refused("InvalidSignatureException", "'Host' and every 'X-Amz-' header must be a signed header.")
        if any(len(fields.get_all(name, [])) != 1 for name in signed):
            raise Refused("InvalidSignatureException", "A signed header must be there once.")
        if fields.get("X-Amz-Content-SHA256", hashlib.sha256(body).hexdigest()) != hashlib.sha256(body).hexdigest():
            raise Refused("InvalidSignatureException", "X-Amz-Content-SHA256 is not of this body.")
        request = AWSRequest(method, f"http://{fields['Host']}{target}", {name: fields[name] for name in signed}, body)
        request.context["timestamp"] = moment
        computed = self._auth.signature(
            self._auth.string_to_sign(request, self._auth.canonical_request(request)), request
        )
        if not hmac.compare_digest(computed, signature):
            raise Refused("InvalidSignatureException", "The request signature we calculated does not match.")


def _unix(moment: str) -> float:
    try:
        return datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0
