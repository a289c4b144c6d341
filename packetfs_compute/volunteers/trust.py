r"""What must happen with the answer of a browser that nobody knows: the rules, as functions of what is known of it.

Browsers are strangers. Up to 35 % of them may lie: at once, after long good behaviour, or all together with the same wrong
values, and an account costs them nothing. Of the results that are given out at most ``ACCEPTABLE`` = 1e-4 may be wrong.

**The order of things.** A program goes to one browser. When its answer is in, and not before, a random number decides, with
a probability that depends on that browser's reputation alone:

- *check*: a trusted place computes it too, and what that place says is given out;
- *second*: another browser, of another account and network and at random among the idle, computes it. Equal values are
  given out; anything else is checked.

A browser is told nothing of what follows, and a request is the same whether it will be checked or not: a check cannot be
recognised. In particular the second browser is drawn after the first has committed itself. Were two asked at the same
moment, two that share their bookkeeping would know that they are among themselves, and would lie at no risk but a check's.

**How likely a check is.** Always below ``PROBATION`` checked results, and never below ``FLOOR``. In between it follows from
what the browser has to lose. Let its *credit* w be the results that were given out on its word: 1 for one that a place of
trust confirmed, 1/2 for one that two browsers share; one mismatch bans it and takes all of w. Let s be the chance of a check
and F the largest part of the idle browsers that may be in league with it. One lie is given out with probability
(1 - s) F at most, and is caught otherwise. So where ::

    (1 - s) F  <=  ACCEPTABLE * w * (1 - (1 - s) F)

the wrong results given out are, in expectation, never more than ``ACCEPTABLE`` times the credit that liars have lost: a sum
that only falls in expectation with each lie, whatever moment it is told at (so patience gains nothing), and wherever a new
account comes from. And the credit ever given is at most the number of results given out. With F = 1/2, well above 35 %::

    s  =  1 - ACCEPTABLE w / (F (1 + ACCEPTABLE w))           at least FLOOR

which is 0.998 at w = 10, 0.82 at 1,000, 0.33 at 5,000 and the floor from 8,182. Credit that stands behind one answer whose
fate is open stands behind no other (:func:`stake_of`): else a hundred lies told at once would be paid for once.

Quorum of two with 10 % spot checks and no such rule lets a third that colludes pass 0.46 wrong results for every account
that it burns, after 10 results each. Sarmenta's credibility (2002) reckons with errors that are independent: a group that
agrees breaks it. F is a part of those that may vouch, so a second is past its probation.

**What is no lie.** Two answers of different versions of the object (both name an ETag or size, and differ) decide nothing:
nobody is banned, but the credit begins anew, so that claiming it is no way out. A failure is never taken from browsers
alone: a place of trust must agree. One that was wrong bans nobody, since a page cannot tell a source without CORS from a
dead one; but a browser that fails ``MAX_FAILURES`` times in a row is left alone for a while.
"""

import ipaddress
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from packetfs_compute.errors import error_class

__all__ = [
    "ACCEPTABLE",
    "FLOOR",
    "FULL_STAKE",
    "MAX_FAILURES",
    "PROBATION",
    "REST_S",
    "Event",
    "Party",
    "Reputation",
    "Verdict",
    "agreed_answer",
    "check_probability",
    "compared",
    "event_of",
    "fault_of",
    "may_vouch",
    "needs_check",
    "network_of",
    "origin_of",
    "recorded",
    "stake_of",
    "usable",
]

PROBATION: Final = 10
"""Checked results before a browser's word counts for anything."""
FLOOR: Final = 0.1
"""The least chance of a check, whatever the reputation."""
ACCEPTABLE: Final = 1e-4
"""Wrong results among those that are given out."""
IN_LEAGUE: Final = 0.5
"""F: the part of the idle browsers that the rule withstands."""
MAX_FAILURES: Final = 5
REST_S: Final = 600.0
"""How long a browser is left alone that has failed so often in a row."""

FULL_STAKE: Final = math.ceil((1 - FLOOR) * IN_LEAGUE / (1 - (1 - FLOOR) * IN_LEAGUE) / ACCEPTABLE)
"""The credit at which the chance of a check is at its least: no answer needs a larger stake."""

Event = Literal["confirmed", "agreed", "wrong", "unclear", "failed"]
"""How an answer fared: a place of trust or another browser found the same; it lied; versions differ; there was none."""
Verdict = Literal["same", "different", "unclear"]


@dataclass(frozen=True, slots=True)
class Reputation:
    """What is known of an account. The default is a stranger."""

    checked: int = 0
    """Results that a place of trust found too."""
    agreed: int = 0
    """Results that were given out because another browser found the same."""
    verified_bytes: int = 0
    """Bytes of both: the account's credit as people see it."""
    unclear: int = 0
    failures: int = 0
    """In a row, the last of them at ``failed_at`` (Unix seconds)."""
    failed_at: float = 0.0
    banned_at: float = 0.0
    """When it was caught, in Unix seconds; 0 is never."""

    @property
    def banned(self) -> bool:
        """Whether its word counts for nothing, for ever."""
        return self.banned_at > 0

    @property
    def credit(self) -> float:
        """What it has to lose: its share of the results that were given out."""
        return self.checked + self.agreed / 2


@dataclass(frozen=True, slots=True)
class Party:
    """Whose browser it is, and where it stands: the account, and the network as :func:`network_of` gives it."""

    account: str
    network: str


def network_of(address: str) -> str:
    """Return the network that counts as one party's: /24 of IPv4, /56 of IPv6; raise ``ValueError`` for no address."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return str(ipaddress.ip_network((parsed, 24 if parsed.version == 4 else 56), strict=False))


def origin_of(url: str) -> str:
    """Return the origin of a source, which is what CORS goes by: scheme, host and port, in lower case."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


def stake_of(reputation: Reputation, staked: int, hubs: int = 1) -> int:
    """Return the credit that stands behind one more answer, where ``staked`` of it stands behind others.

    ``hubs`` of them judge the account at once, each by what it knows of the others': nothing.
    """
    return max(0, min(FULL_STAKE, math.floor(reputation.credit / hubs) - staked))


def check_probability(reputation: Reputation, stake: float) -> float:
    """Return how likely an answer of this browser is checked, where so much of its credit stands behind it."""
    if reputation.banned or reputation.checked < PROBATION:
        return 1.0
    allowed = ACCEPTABLE * stake
    return max(FLOOR, 1 - allowed / (IN_LEAGUE * (1 + allowed)))


def needs_check(reputation: Reputation, stake: float, draw: float) -> bool:
    """Return whether a trusted place must compute it too; ``draw`` is uniform in [0, 1), made after the answer came."""
    return draw < check_probability(reputation, stake)


def may_vouch(first: Party, other: Party, reputation: Reputation) -> bool:
    """Return whether ``other``, of ``reputation``, may be the second browser where ``first`` was the first."""
    independent = first.account != other.account and first.network != other.network
    return independent and not reputation.banned and reputation.checked >= PROBATION


def usable(reputation: Reputation, now: float) -> bool:
    """Return whether the browser may be given work."""
    resting = reputation.failures >= MAX_FAILURES and now < reputation.failed_at + REST_S
    return not reputation.banned and not resting


def recorded(reputation: Reputation, event: Event, byte_count: int, now: float) -> Reputation:
    """Return the reputation after ``event``. ``scripts/record.lua`` is its twin."""
    if event == "wrong":
        return reputation if reputation.banned else replace(reputation, banned_at=now)
    if event == "unclear":
        return replace(reputation, checked=0, agreed=0, unclear=reputation.unclear + 1)
    if event == "failed":
        return replace(reputation, failures=reputation.failures + 1, failed_at=now)
    earned = replace(reputation, failures=0, verified_bytes=reputation.verified_bytes + byte_count)
    if event == "confirmed":
        return replace(earned, checked=reputation.checked + 1)
    return replace(earned, agreed=reputation.agreed + 1)


def compared(answer: Mapping[str, Any], other: Mapping[str, Any]) -> Verdict:
    """Return what two successes of the wire, of one request, say of each other."""
    if all(answer[key] == other[key] for key in ("results", "bytesProcessed")):
        return "same"
    versions = [(answer.get(key), other.get(key)) for key in ("etag", "objectSize")]
    return "unclear" if any(None not in pair and pair[0] != pair[1] for pair in versions) else "different"


def event_of(verdict: Verdict) -> Event:
    """Return what becomes of a browser whose answer compares so with that of a place of trust."""
    return "confirmed" if verdict == "same" else "wrong" if verdict == "different" else "unclear"


def agreed_answer(answer: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return what may be given out of two browsers' equal values: of what they say besides, what both say."""
    common = {key: answer[key] if answer.get(key) == other.get(key) else None for key in ("etag", "objectSize")}
    return {**answer, **common, "region": "browser", "memoryUsedMb": None, "cache": None}


def fault_of(answer: Mapping[str, Any]) -> Literal["program", "source", "substrate"] | None:
    """Return whose fault a browser says it is that there is no result; ``None`` for an answer that has one."""
    return None if answer["success"] else error_class(answer["error"]["type"]).fault
