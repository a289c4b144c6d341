"""Tickets: how a page that was let in over HTTP opens the WebSocket, where no header of its own can be sent.

``v1.<base64url of account, network, expiry, nonce>.<hex HMAC-SHA256 of it>``: short-lived, good once, and only from the
network that it was given to. A stolen one is of no use a minute later, nor from elsewhere, nor twice.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Callable
from typing import Final

from packetfs_compute.errors import Unauthorized

__all__ = ["ACCOUNT", "TICKET_S", "Tickets"]

TICKET_S: Final = 60
ACCOUNT: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
"""What an account may be called."""

_TICKET: Final = re.compile(r"(v1\.[A-Za-z0-9_-]{1,400})\.([0-9a-f]{64})")


class Tickets:
    """Gives tickets out and takes them back. Safe to share between threads.

    ``secret`` is known to every gateway that a browser may reach. ``spend(nonce, until, now)`` says whether a nonce comes
    for the first time: :meth:`packetfs_compute.volunteers.base.Reputations.spend`.
    """

    def __init__(
        self, secret: bytes, spend: Callable[[str, float, float], bool], clock: Callable[[], float] = time.time
    ) -> None:
        if len(secret) < 16:
            raise ValueError("a secret has 16 bytes at least")
        self._secret = secret
        self._spend = spend
        self._clock = clock

    def issue(self, account: str, network: str) -> str:
        """Return a ticket; raise ``ValueError`` for a name that no account may have."""
        if not ACCOUNT.fullmatch(account):
            raise ValueError("an account's name is 1 to 64 of A-Z a-z 0-9 . _ : -")
        says = [account, network, int(self._clock()) + TICKET_S, secrets.token_urlsafe(12)]
        body = "v1." + base64.urlsafe_b64encode(json.dumps(says).encode("ascii")).rstrip(b"=").decode("ascii")
        return f"{body}.{self._mac(body)}"

    def redeem(self, ticket: str, network: str) -> str:
        """Return the account of a ticket, which is then used up; raise :class:`Unauthorized` for anything else."""
        match = _TICKET.fullmatch(ticket)
        if match is None or not hmac.compare_digest(self._mac(match[1]), match[2]):
            raise _refused("is not one of ours")
        try:  # what was signed here is well formed, unless the secret serves something else as well
            text = match[1].removeprefix("v1.")
            account, given_to, until, nonce = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except (ValueError, binascii.Error) as error:
            raise _refused("is not one of ours") from error
        now = self._clock()
        if now >= until:
            raise _refused("has expired")
        if network != given_to:
            raise _refused("was given to another network")
        if not self._spend(nonce, until, now):
            raise _refused("was used before")
        return str(account)

    def _mac(self, body: str) -> str:
        return hmac.new(self._secret, b"packetfs-ticket " + body.encode("ascii"), hashlib.sha256).hexdigest()


def _refused(why: str) -> Unauthorized:
    return Unauthorized(f"the ticket {why}", {"hint": "ask for a new ticket"})
