"""The judgement: asks who must be asked beside a browser, gives out what stands, and has liars pay.

Every rule is in ``trust.py``; here are the questions that it takes to apply them. A place of trust that gives no result when
it is needed leaves a *dispute*: nothing is given out, the accounts are given no work, and the question is asked again in the
background, until it is answered or the credit of those accounts is gone. Without that, the hours in which the place of trust
is away would be those in which a lie costs nothing. A mismatch where nothing names the object's version is one too: a source
that gives other bytes each time must get nobody banned, so that place is asked twice.

After a ban what the account said and no place of trust has confirmed is computed again; who vouched for what turns out wrong
is banned likewise.
"""

import asyncio
import functools
import logging
import random
import secrets
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from packetfs_compute.errors import BrokerUnavailable, Internal, JobError
from packetfs_compute.volunteers.base import Reputations
from packetfs_compute.volunteers.trust import (
    Event,
    Party,
    Reputation,
    agreed_answer,
    compared,
    event_of,
    fault_of,
    needs_check,
    origin_of,
    stake_of,
)
from packetfs_compute.wire import ComputeRequest, error_from_wire, parse_answer, parse_request

__all__ = ["Browsers", "Claim", "Judge", "Stats"]

_log = logging.getLogger(__name__)

_ASK_AGAIN_S: Final = (0.0, 1.0, 10.0, 60.0)
"""How long to wait before each time that a disputed question is asked."""
_MAX_DISPUTES: Final = 2000
_REMEMBERED: Final = 4096

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Claim:
    """What a browser said, parsed: values, or a failure of the program or of the source."""

    party: Party
    answer: Answer


@dataclass(frozen=True, slots=True)
class Stats:
    """What a hub has counted since it began; the first four are of now."""

    browsers: int = 0
    idle: int = 0
    running: int = 0
    under_way: int = 0
    rehanded: int = 0
    busy: int = 0
    checked: int = 0
    """Answers that a place of trust was asked about, and gave out in their stead."""
    agreed: int = 0
    """Answers given out because two browsers found the same."""
    tie_breaks: int = 0
    banned: int = 0
    unclear: int = 0
    doubted: int = 0
    found_wrong: int = 0
    """Results given out that a second look found wrong."""


class Browsers(Protocol):
    """What the judge needs of the hub."""

    async def second(self, asked: ComputeRequest, first: Party, tried: set[str], until: float) -> Claim | None:
        """Return what another browser says, or ``None``."""

    async def put_out(self, account: str) -> None:
        """Close all connections of an account."""

    def learnt(self, account: str, reputation: Reputation) -> None:
        """Take note of a reputation."""

    def left_ms(self, until: float) -> int:
        """Return the milliseconds until then; raise ``TimeoutError`` where there are none."""


class Judge:
    """Decides what is given out of what browsers say."""

    def __init__(
        self,
        browsers: Browsers,
        reputations: Reputations,
        trusted: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]],
        rechecks: int,
        hubs: int,
        wall: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._browsers, self._reputations, self._trusted = browsers, reputations, trusted
        self._hubs, self._wall, self._rng = hubs, wall, rng
        self._few = asyncio.Semaphore(rechecks)
        self._disputed: Counter[str] = Counter()
        self._staked: dict[str, int] = {}
        self._caught: deque[str] = deque(maxlen=_REMEMBERED)
        self._looked_at: deque[str] = deque(maxlen=_REMEMBERED)
        """Accounts and kept results that are dealt with: several lies are one ban, and two keep each result."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.stats = Stats()

    def in_dispute(self, account: str) -> bool:
        """Return whether a question about an account is open."""
        return account in self._disputed

    async def judged(self, claim: Claim, asked: ComputeRequest, tried: set[str], until: float) -> Answer:
        """Return what is given out where ``claim`` came first; raise a :class:`JobError` for nothing."""
        reputation = await asyncio.to_thread(self._reputations.get, claim.party.account)
        if reputation.banned:  # by another hub, or while it computed
            self._browsers.learnt(claim.party.account, reputation)
            await self._browsers.put_out(claim.party.account)
            raise Internal("the browser was banned while it computed")
        account = claim.party.account
        stake = 0 if self.in_dispute(account) else stake_of(reputation, self._staked.get(account, 0), self._hubs)
        self._staked[account] = self._staked.get(account, 0) + stake
        try:
            if (
                fault_of(claim.answer) is not None
                or self.in_dispute(account)
                or needs_check(reputation, stake, self._rng.random())
            ):
                return await self._checked([claim], asked, until)
            return await self._vouched(claim, asked, tried, until)
        finally:
            self._staked[account] = self._staked.get(account, 0) - stake
            if not self._staked[account]:
                del self._staked[account]

    async def record(self, party: Party, event: Event, byte_count: int = 0) -> None:
        """Have an account's reputation learn of ``event``, and bear what follows from it."""
        account = party.account
        reputation = await asyncio.to_thread(self._reputations.record, account, event, byte_count, self._wall())
        self._browsers.learnt(account, reputation)
        if event == "unclear":
            self._count(unclear=1)
        if event == "wrong":
            if account not in self._caught:
                self._caught.append(account)
                self._count(banned=1)
                _log.warning("a browser of %s gave a wrong value and is banned", account)
            await self._browsers.put_out(account)
            self._start(functools.partial(self._look_again, account))

    async def settled(self) -> None:
        """Wait until no dispute and no second look is left."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def aclose(self) -> None:
        """Stop what runs in the background."""
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _vouched(self, claim: Claim, asked: ComputeRequest, tried: set[str], until: float) -> Answer:
        """Return the claim's answer where another browser says the same, and else what a place of trust says."""
        tried.add(claim.party.account)
        try:
            other = await self._browsers.second(asked, claim.party, tried, until)
        except (JobError, TimeoutError, asyncio.CancelledError):
            # An answer that leaves a second one no time must be no safer than any other.
            self._dispute(claim, asked)
            raise
        if other is None:
            return await self._checked([claim], asked, until)
        if fault_of(other.answer) is None and compared(claim.answer, other.answer) == "same":
            return await self._agreed(claim, other, asked)
        self._count(tie_breaks=1)
        return await self._checked([claim, other], asked, until)

    async def _agreed(self, one: Claim, other: Claim, asked: ComputeRequest) -> Answer:
        answer = agreed_answer(one.answer, other.answer)
        kept = {
            "id": secrets.token_urlsafe(9),
            "request": asked.to_wire(),
            "answer": answer,
            "accounts": [one.party.account, other.party.account],
        }
        for claim in (one, other):
            await asyncio.to_thread(self._reputations.keep, claim.party.account, kept)
            await self.record(claim.party, "agreed", answer["bytesProcessed"])
        self._count(agreed=1)
        return answer

    async def _checked(self, claims: list[Claim], asked: ComputeRequest, until: float) -> Answer:
        """Return what a place of trust says, and let the claims be measured by it."""
        try:
            truth = await self._ask(replace(asked, timeout_ms=self._browsers.left_ms(until)))
        except (JobError, TimeoutError, asyncio.CancelledError):
            for claim in claims:
                self._dispute(claim, asked)
            raise
        self._count(checked=1)
        for claim in claims:
            await self._measure(claim, asked, truth)
        return truth

    async def _measure(self, claim: Claim, asked: ComputeRequest, truth: Answer) -> None:
        said, found = fault_of(claim.answer), fault_of(truth)
        if said is not None:
            if found is None:
                await self.record(claim.party, "failed")
                if said == "source":
                    self._count(doubted=1)
                    origin = origin_of(asked.program.data_url)
                    await asyncio.to_thread(self._reputations.doubt, origin, claim.party.network, self._wall())
        elif found is not None:
            await self.record(claim.party, "unclear")
        else:
            verdict = compared(claim.answer, truth)
            if verdict == "different" and not _same_version(claim.answer, truth):
                self._dispute(claim, asked, truth)
            else:
                await self.record(claim.party, event_of(verdict), truth["bytesProcessed"])

    async def _ask(self, asked: ComputeRequest) -> Answer:
        """Return what a place of trust says: values, or a failure of the program or the source; raise what else it is."""
        async with asyncio.timeout(asked.timeout_ms / 1000):
            answer = parse_answer(await self._trusted(asked.to_wire()), asked)
        if fault_of(answer) == "substrate":
            raise error_from_wire(answer["error"])
        return answer

    def _dispute(self, claim: Claim, asked: ComputeRequest, truth: Answer | None = None) -> None:
        """Leave a claim open, and its account without work, until a place of trust has spoken (again)."""
        if fault_of(claim.answer) is not None:
            return
        self._disputed[claim.party.account] += 1
        self._start(functools.partial(self._resolve, claim, asked, truth))

    async def _resolve(self, claim: Claim, asked: ComputeRequest, truth: Answer | None) -> None:
        account = claim.party.account
        try:
            found = None if len(self._tasks) > _MAX_DISPUTES else await self._ask_until_answered(asked)
            if found is None or (
                truth is not None and (fault_of(found) is not None or compared(found, truth) != "same")
            ):
                await self.record(claim.party, "unclear")
            elif truth is not None:
                await self.record(claim.party, "wrong")
            else:
                await self._measure(claim, asked, found)
        finally:
            self._disputed[account] -= 1
            if self._disputed[account] <= 0:
                del self._disputed[account]

    async def _look_again(self, account: str) -> None:
        """Compute again what a banned account said and only another browser has confirmed."""
        for kept in await asyncio.to_thread(self._reputations.take, account):
            if kept["id"] in self._looked_at:
                continue
            self._looked_at.append(kept["id"])
            asked, answer = parse_request(kept["request"]), kept["answer"]
            found = await self._ask_until_answered(asked)
            if found is None or fault_of(found) is not None or compared(answer, found) == "same":
                continue
            sure = _same_version(answer, found)
            if sure:
                self._count(found_wrong=1)
                _log.error("job %s was given a wrong value by browsers", asked.job_id)
            for other in kept["accounts"]:
                known = await asyncio.to_thread(self._reputations.get, other)
                if other != account and not known.banned:
                    await self.record(Party(other, ""), "wrong" if sure else "unclear")

    async def _ask_until_answered(self, asked: ComputeRequest) -> Answer | None:
        for wait_s in _ASK_AGAIN_S:
            await asyncio.sleep(wait_s)
            try:
                async with self._few:
                    return await self._ask(asked)
            except (JobError, TimeoutError):
                continue
        return None

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.create_task(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _count(self, **more: int) -> None:
        self.stats = replace(self.stats, **{name: getattr(self.stats, name) + by for name, by in more.items()})


def _same_version(answer: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two answers are surely of one version of the object: both name the same strong ETag."""
    return answer.get("etag") is not None and answer["etag"] == other.get("etag")


async def _logged(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """A second look that its store's absence ends is no reason for a traceback."""
    try:
        await work()
    except BrokerUnavailable as error:
        _log.error("a second look at a browser's work was not finished: %s", error.message)
