"""The hub: hands programs to the browsers that are connected, and gives out only what the rules of ``trust.py`` let pass.

It knows no WebSocket server: :meth:`Hub.serve` speaks with one browser over a :class:`Connection`, :meth:`Hub.compute`
answers as ``POST /compute`` does. One event loop runs it all; the reputations, whose calls may block, are asked in threads.

The way of a program: any idle browser; if that is lost, or fails by its own fault, another one, ``Limits.hands`` at most;
then the judgement (:mod:`packetfs_compute.volunteers.judge`). No idle browser, or too many programs under way: ``busy``. A
source that browsers cannot read: ``internal``, not retryable, at once, so that the dispatcher goes elsewhere. All of it
within the request's ``timeout``.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from packetfs_compute.errors import AttemptTimeout, BrokerUnavailable, Busy, Internal, JobError, TooLarge, Unauthorized
from packetfs_compute.volunteers.base import Reputations
from packetfs_compute.volunteers.frames import BadFrame, Hello, parse_frame
from packetfs_compute.volunteers.judge import Claim, Judge, Stats
from packetfs_compute.volunteers.session import Close, Connection, Limits, Rate, Session
from packetfs_compute.volunteers.trust import Party, Reputation, fault_of, may_vouch, origin_of, usable
from packetfs_compute.wire import ComputeRequest, failure, job_id_of, parse_answer, parse_request

__all__ = ["Hub"]

_RETRY_AFTER_S: Final = 1.0
_LATE_S: Final = 0.1
_DRAWS: Final = 8
_DEFAULT_LIMITS: Final = Limits()


class Hub:
    """The browsers of one gateway process.

    ``trusted`` computes a request in a place of ours and returns its answer. ``redeem(ticket, network)`` returns a ticket's
    account or raises :class:`Unauthorized`; it may block. ``check(url)`` raises the :class:`JobError` of
    a source that no browser is to be sent to. ``clock`` is monotonic seconds, ``wall`` Unix time; ``rng`` must
    be one that a browser cannot foretell.
    """

    def __init__(
        self,
        reputations: Reputations,
        trusted: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]],
        redeem: Callable[[str, str], str],
        *,
        check: Callable[[str], object] = lambda _: None,
        limits: Limits = _DEFAULT_LIMITS,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self._reputations = reputations
        self._redeem, self._check = redeem, check
        self._limits, self._clock, self._wall = limits, clock, wall
        self._rng = rng or random.SystemRandom()
        self._sessions: dict[str, Session] = {}
        self._drawn_from: list[Session] = []
        """The same, so that one can be drawn at random without a look at all."""
        self._known: dict[str, Reputation] = {}
        """What was last heard of the connected accounts, so that choosing one asks nobody."""
        self._arriving = 0
        self._under_way = 0
        self._rehanded = 0
        self._refused_busy = 0
        self._judge = Judge(self, reputations, trusted, limits.rechecks, limits.hubs, wall, self._rng)

    # What browsers meet.

    async def serve(self, connection: Connection, network: str) -> None:
        """Speak with one browser until it leaves or is put out. ``network`` is :func:`trust.network_of` its address."""
        try:
            session = await self._admit(connection, network)
        except (BadFrame, _NotAdmitted, Unauthorized, BrokerUnavailable, TimeoutError, ConnectionError) as error:
            await _closed(connection, *_why_not(error))
            return
        try:
            await self._listen(session, connection)
            await session.close(Close.GOING, "goodbye")
        finally:
            if self._sessions.pop(session.id, None) is not None:
                self._drawn_from.remove(session)
            await session.close(Close.GOING, "goodbye")
            if not any(other.party.account == session.party.account for other in self._sessions.values()):
                self._known.pop(session.party.account, None)

    async def _admit(self, connection: Connection, network: str) -> Session:
        """Return the session of a browser that says hello as it should."""
        if len(self._sessions) + self._arriving >= self._limits.browsers:
            raise _NotAdmitted(Close.TOO_MANY, "too many browsers")
        self._arriving += 1
        try:
            async with asyncio.timeout(self._limits.hello_s):
                hello = parse_frame(await connection.receive())
                if not isinstance(hello, Hello):
                    raise BadFrame("hello comes first")
                account = await asyncio.to_thread(self._redeem, hello.ticket, network)
                reputation = await asyncio.to_thread(self._reputations.get, account)
                if reputation.banned:
                    raise _NotAdmitted(Close.BANNED, "banned")
                if sum(one.party.account == account for one in self._sessions.values()) >= self._limits.per_account:
                    raise _NotAdmitted(Close.TOO_MANY, "too many browsers of this account")
                session = Session(connection, Party(account, network), hello, self._limits.lease_s, self._clock)
                await session.welcome()
                self._known[account] = reputation
                self._sessions[session.id] = session
                self._drawn_from.append(session)
                return session
        finally:
            self._arriving -= 1

    async def _listen(self, session: Session, connection: Connection) -> None:
        rate = Rate(self._limits.frames_per_s, self._limits.burst, self._clock)
        try:
            while True:
                frame = parse_frame(await connection.receive())
                # As many answers as it was asked for are no flood, however fast they come.
                if not session.awaits(frame) and not rate.take():
                    await session.close(Close.TOO_FAST, "too many frames")
                    return
                session.take(frame)
        except BadFrame as error:
            await session.close(Close.BAD_FRAME, str(error)[:120])
        except ConnectionError:
            return

    async def put_out(self, account: str) -> None:
        """Close all connections of a banned account."""
        for session in [one for one in self._sessions.values() if one.party.account == account]:
            await session.close(Close.BANNED, "banned")

    def learnt(self, account: str, reputation: Reputation) -> None:
        """Take note of what is known of an account now."""
        if account in self._known:
            self._known[account] = reputation

    async def settled(self) -> None:
        """Wait until no dispute and no second look is left."""
        await self._judge.settled()

    # What dispatchers meet.

    async def compute(self, request: object) -> dict[str, Any]:
        """Answer a request of ``POST /compute``. Never raises for a failed attempt."""
        started = self._clock()
        try:
            asked = parse_request(request)
            self._check(asked.program.data_url)
            if (asked.program.length or 0) > self._limits.range_bytes:
                raise TooLarge(
                    f"a browser takes ranges of at most {self._limits.range_bytes} bytes", {"field": "program.length"}
                )
            if self._under_way >= self._limits.requests:
                raise self._busy("too many programs are under way")
            self._under_way += 1
            try:
                async with asyncio.timeout(asked.timeout_ms / 1000):
                    return await self._attempt(asked, started + asked.timeout_ms / 1000)
            finally:
                self._under_way -= 1
        except TimeoutError:
            error: JobError = AttemptTimeout("no browser's answer was at hand by the deadline")
        except BrokerUnavailable as unavailable:
            error = Internal(f"no browser can be judged: {unavailable.message}")
        except JobError as known:
            error = known
        return failure(job_id_of(request), error, self._clock() - started)

    def stats(self) -> Stats:
        """Return what the hub counts, for metrics and dashboards."""
        now = self._wall()
        sessions = [*self._sessions.values()]
        return replace(
            self._judge.stats,
            browsers=len(sessions),
            idle=sum(self._ready(session, now) for session in sessions),
            running=sum(session.running for session in sessions),
            under_way=self._under_way,
            rehanded=self._rehanded,
            busy=self._refused_busy,
        )

    async def aclose(self) -> None:
        """Put all browsers out and stop second looks."""
        await self._judge.aclose()
        for session in [*self._sessions.values()]:
            await session.close(Close.GOING, "the hub ends")

    async def _attempt(self, asked: ComputeRequest, until: float) -> dict[str, Any]:
        origin = origin_of(asked.program.data_url)
        if await asyncio.to_thread(self._reputations.closed, origin, self._wall()):
            raise Internal(f"browsers cannot read {origin}: it allows no other origin (CORS)", {"retryable": False})
        tried: set[str] = set()
        for _ in range(self._limits.hands):
            claim = await self._hand(asked, lambda party, _: party.account not in tried, until)
            if claim is None:
                raise self._busy("no browser is idle")
            if isinstance(claim, Claim):
                return await self._judge.judged(claim, asked, tried, until)
            tried.add(claim.account)
            self._rehanded += 1
        raise Internal(f"none of {self._limits.hands} browsers computed it")

    async def second(self, asked: ComputeRequest, first: Party, tried: set[str], until: float) -> Claim | None:
        """Return what another browser, independent of ``first``, says; ``None`` where none is there that may vouch."""

        def fit(party: Party, reputation: Reputation) -> bool:
            return party.account not in tried and may_vouch(first, party, reputation)

        for _ in range(self._limits.hands):
            claim = await self._hand(asked, fit, until)
            if not isinstance(claim, Party):
                return claim
            tried.add(claim.account)
            self._rehanded += 1
        return None

    def left_ms(self, until: float) -> int:
        """Return the milliseconds until then; raise ``TimeoutError`` where there are none."""
        left = int((until - self._clock()) * 1000)
        if left < 1:
            raise TimeoutError
        return left

    async def _hand(
        self, asked: ComputeRequest, fit: Callable[[Party, Reputation], bool], until: float
    ) -> Claim | Party | None:
        """Have an idle browser, chosen at random, compute it and return what it claims; ``None`` where none is idle.

        Where it failed, by being lost, by its own fault, or by saying what cannot be an answer, return whose it is.
        """
        now = self._wall()

        def fits(session: Session) -> bool:
            return (
                self._ready(session, now)
                and (asked.program.length or 0) <= session.range_bytes
                and fit(session.party, self._known[session.party.account])
            )

        session = self._drawn(fits)
        if session is None:
            return None
        handed = replace(asked, timeout_ms=self.left_ms(until))
        try:
            raw = await session.run(handed.to_wire())
            answer = None if raw is None else parse_answer(raw, asked)
        except Internal:  # it cannot be an answer to this
            answer = None
        except asyncio.CancelledError:
            if self._clock() >= until - _LATE_S:  # else it was the dispatcher that lost interest
                await self._judge.record(session.party, "failed")
            raise
        if answer is None or fault_of(answer) == "substrate":
            if answer is None or not session.excused(answer["error"]["type"], asked.program.length):
                await self._judge.record(session.party, "failed")
            return session.party
        return Claim(session.party, answer)

    def _drawn(self, fits: Callable[[Session], bool]) -> Session | None:
        """Return one at random of those that fit; ``None`` where none does.

        Drawing from all until one fits is drawing from those that fit. Where few do, they are looked for.
        """
        for _ in range(min(_DRAWS, len(self._drawn_from))):
            session = self._rng.choice(self._drawn_from)
            if fits(session):
                return session
        fitting = [session for session in self._drawn_from if fits(session)]
        return self._rng.choice(fitting) if fitting else None

    def _ready(self, session: Session, now: float) -> bool:
        account = session.party.account
        return session.idle and not self._judge.in_dispute(account) and usable(self._known[account], now)

    def _busy(self, why: str) -> Busy:
        self._refused_busy += 1
        return Busy(why, {"retry_after_s": _RETRY_AFTER_S})


class _NotAdmitted(Exception):
    def __init__(self, code: Close, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def _why_not(error: Exception) -> tuple[Close, str]:
    match error:
        case _NotAdmitted():
            return error.code, str(error)
        case BadFrame():
            return Close.BAD_FRAME, str(error)[:120]
        case Unauthorized():
            return Close.REFUSED, error.message
        case TimeoutError():
            return Close.SILENT, "no hello came"
        case BrokerUnavailable():
            return Close.GOING, "try again later"
    return Close.GOING, "goodbye"


async def _closed(connection: Connection, code: Close, reason: str) -> None:
    try:
        async with asyncio.timeout(5):
            await connection.close(code, reason)
    except (ConnectionError, TimeoutError):
        return
