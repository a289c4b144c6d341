"""Reading a byte range over HTTP or HTTPS, from a server that nobody vouches for.

The rim around four pure or small parts: the guard says where a request may go, ``ranges.py`` what to ask and what an
answer means, ``connection.py`` and ``exchange.py`` read it within the deadline. What is left for this module is their
order: vet, connect, ask, follow a redirect by hand (each hop is vetted again, RFC 9110 section 15.4), ask once more
where the first answer does not tell the size, then hand out the bytes.

No proxy and no ``.netrc`` of the environment is used and no cookie is kept: a proxy would connect past the guard, and
the others would lend a stranger's URL this machine's identity.
"""

import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Final
from urllib.parse import urljoin

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import BadProgram, ForbiddenSource, SourceFailed
from packetfs_compute.settings import Settings
from packetfs_compute.sources.base import ByteStream, RangeRequest
from packetfs_compute.sources.connection import Connection, Dropped
from packetfs_compute.sources.exchange import Answer, Body, ask
from packetfs_compute.sources.guard import Target, check_addresses, check_url
from packetfs_compute.sources.http1 import Head, framing, keeps_alive
from packetfs_compute.sources.late import IMPORTING
from packetfs_compute.sources.pool import Pool
from packetfs_compute.sources.ranges import Ask, Plan, beyond, decide, fields, first_ask
from packetfs_compute.sources.resolve import BoundedResolver, LookUp, system_look_up
from packetfs_compute.sources.tls import settled
from packetfs_compute.validation import show

__all__ = ["HttpSource", "HttpStream"]

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS: Final = 5
_CHUNK: Final = 1 << 18

Fields = Sequence[tuple[str, str]]


class HttpSource:
    """Objects at http:// and https:// URLs.

    ``look_up`` finds a name's addresses, ``tls`` is whom to trust (the system's store by default) and ``now`` is Unix
    time; tests give their own. Safe to share between threads.
    """

    def __init__(
        self,
        settings: Settings,
        look_up: LookUp = system_look_up,
        tls: ssl.SSLContext | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._resolver = BoundedResolver(look_up)
        self._given_tls = tls
        self._now = now
        self._pool = Pool()

    def open(self, request: RangeRequest, deadline: Deadline) -> "HttpStream":
        """Open a range; see :class:`~packetfs_compute.sources.base.Source`."""
        target = check_url(request.url, self._settings)
        what = first_ask(request)
        while True:
            target, answer = self._follow(target, what, request, deadline)
            try:
                decision = decide(answer.head, what, request, self._settings.max_skip_bytes, self._now())
                if isinstance(decision, Plan):
                    return HttpStream(self._pool, target, answer, decision, request)
            except BaseException:
                answer.connection.close()
                raise
            self._set_aside(target, answer)
            what = decision

    def head(self, url: str, deadline: Deadline, more: Fields = ()) -> tuple[Head, Plan]:
        """Return what the source says of the whole object, and what that proves; ``more`` fields are sent.

        It is a GET whose body is not read: a presigned URL is signed for GET alone, and to a range S3 tells no checksum.
        """
        request = RangeRequest(url)
        target, answer = self._follow(check_url(url, self._settings), Ask.WHOLE, request, deadline, more)
        try:
            decision = decide(answer.head, Ask.WHOLE, request, self._settings.max_skip_bytes, self._now())
        finally:
            self._set_aside(target, answer)
        if not isinstance(decision, Plan):
            raise SourceFailed("the source refuses (416) even the whole object", {"retryable": False})
        return answer.head, decision

    def close(self) -> None:
        """Close the idle connections; the source may still be used."""
        self._pool.close()

    def _follow(
        self, target: Target, what: Ask, request: RangeRequest, deadline: Deadline, more: Fields = ()
    ) -> tuple[Target, Answer]:
        """Ask, and go where redirects lead; return the target that gave the first other answer, and that answer."""
        seen = {target.url}
        while True:
            answer = self._exchange(target, [*fields(what, request), *more], deadline)
            if answer.head.status not in _REDIRECTS:
                return target, answer
            self._set_aside(target, answer)
            target = _redirected(target, answer.head, self._settings)
            if target.url in seen:
                raise SourceFailed("the source redirects in a circle", {"retryable": False})
            seen.add(target.url)
            if len(seen) > _MAX_REDIRECTS + 1:
                raise SourceFailed(f"the source redirects more than {_MAX_REDIRECTS} times", {"retryable": False})

    def _exchange(self, target: Target, sent: Fields, deadline: Deadline) -> Answer:
        """Send one request and return its answer, on an idle connection where there is one.

        The server may have closed that in the meantime: then, and only before any byte of an answer, a new connection
        is tried (RFC 9112, section 9.3.1). A GET is safe to send twice.
        """
        connection = self._pool.take(target)
        if connection is not None:
            connection.deadline = deadline
            try:
                return _ask(connection, target, sent)
            except Dropped:
                pass
        connection = self._connect(target, deadline)
        try:
            return _ask(connection, target, sent)
        except Dropped as error:
            raise SourceFailed(error.message, error.details) from error

    def _connect(self, target: Target, deadline: Deadline) -> Connection:
        addresses = self._resolver.addresses(target, deadline, self._settings.connect_timeout_s)
        check_addresses(target, addresses, self._settings)
        tls = self._tls if target.scheme == "https" else None
        # Loading urllib3 takes longer than the rest of the package, and a dispatcher that only presigns needs none.
        with IMPORTING:
            from packetfs_compute.sources.dial import dial  # noqa: PLC0415

        return dial(target, addresses, deadline, self._settings, tls)

    def _set_aside(self, target: Target, answer: Answer) -> None:
        """Be done with an answer whose body is not wanted: keep the connection only if that body is here already."""
        try:
            here = framing(answer.head).length == len(answer.surplus)
        except SourceFailed:
            here = False
        _release(self._pool, target, answer, here)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return settled(self._given_tls or ssl.create_default_context())


class HttpStream(ByteStream):
    """The bytes of an opened range; see :class:`~packetfs_compute.sources.base.ByteStream`."""

    def __init__(self, pool: Pool, target: Target, answer: Answer, plan: Plan, request: RangeRequest) -> None:
        self.object_size = plan.object_size
        self.etag = plan.etag
        self._pool = pool
        self._target = target
        self._answer: Answer | None = answer
        self._status = answer.head.status
        self._plan = plan
        self._request = request
        self._body = Body(answer, plan.framing)

    def __iter__(self) -> Iterator[memoryview]:
        """Yield the range's bytes, each chunk in the same buffer."""
        take = self._plan.take
        buffer = memoryview(bytearray(_CHUNK if take is None else min(_CHUNK, max(take, self._plan.skip, 1))))
        yield from self._all(lambda _: buffer)

    def fill(self, buffer: memoryview) -> int:
        """Read the whole range into ``buffer``: from the socket straight to where it is wanted."""
        take = self._plan.take
        if take is None:
            return super().fill(buffer)
        if take > len(buffer):
            raise ValueError(f"a range of {take} bytes does not fit in {len(buffer)}")
        return sum(map(len, self._all(lambda taken: buffer[taken : taken + _CHUNK])))

    def close(self) -> None:
        """Give up what is not yet read."""
        if self._answer is not None:
            self._answer.connection.close()
            self._answer = None

    def _all(self, room: Callable[[int], memoryview]) -> Iterator[memoryview]:
        try:
            if not self._plan.empty:
                yield from self._read(room)
            self._done()
        finally:
            self.close()

    def _read(self, room: Callable[[int], memoryview]) -> Iterator[memoryview]:
        """Yield the range's bytes, each chunk where ``room`` says of how many are taken already."""
        take = self._plan.take
        self._skip()
        taken = 0
        while take is None or taken < take:
            buffer = room(taken)
            want = len(buffer) if take is None else min(len(buffer), take - taken)
            got = self._body.readinto(buffer[:want])
            taken += got
            if got < want:
                self._ended_at(self._plan.skip + taken)
            if got:
                yield buffer[:got].toreadonly()
            if got < want:
                break
        if take is not None and self._plan.exact and not self._body.complete and self._body.readinto(_one()):
            raise SourceFailed("the source sent more bytes than the range that it declared")

    def _skip(self) -> None:
        left = self._plan.skip
        buffer = memoryview(bytearray(min(_CHUNK, left)))
        while left:
            want = min(len(buffer), left)
            got = self._body.readinto(buffer[:want])
            left -= got
            if got < want:
                self._ended_at(self._plan.skip - left)
                raise beyond(self._request, self._plan.skip - left)

    def _ended_at(self, position: int) -> None:
        """The body ended properly after ``position`` bytes of it, before what the plan expects."""
        framing = self._plan.framing
        if framing.kind == "chunked" and self._status == 200:
            # Only now is it known where the object ends.
            self.object_size = position
            if self._request.stop is None:
                return
            raise beyond(self._request, position)
        raise SourceFailed("the source cut its answer: the connection ended in the middle of the range")

    def _done(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            _release(self._pool, self._target, answer, self._body.clean)


def _one() -> memoryview:
    return memoryview(bytearray(1))


def _ask(connection: Connection, target: Target, sent: Fields) -> Answer:
    """Send the request and read the head of its answer; a connection that failed is closed."""
    try:
        return ask(connection, target.path, [("Host", target.host_header), *sent])
    except BaseException:
        connection.close()
        raise


def _release(pool: Pool, target: Target, answer: Answer, clean: bool) -> None:
    """Keep the connection if its server keeps it too and has sent nothing that nobody asked for."""
    if clean and keeps_alive(answer.head):
        pool.give(target, answer.connection)
    else:
        answer.connection.close()


def _redirected(target: Target, head: Head, settings: Settings) -> Target:
    """Return where a redirect leads, vetted like any other URL; a server's bad URL is the server's fault."""
    location = head.one("location")
    if not location:
        raise SourceFailed(f"the source redirects ({head.status}) to nowhere", {"retryable": False})
    try:
        following = check_url(urljoin(target.url, location).partition("#")[0], settings)
    except (BadProgram, ValueError) as error:
        message = f"the source redirects to {show(location)}, which is no usable URL"
        raise SourceFailed(message, {"retryable": False}) from error
    if target.scheme == "https" and following.scheme == "http":
        raise ForbiddenSource("the source redirects from https to http", {"hint": "use the https URL of the object"})
    return following
