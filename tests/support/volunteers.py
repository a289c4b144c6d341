"""Browsers without a browser: clients that speak the hub's protocol and compute with this package's executor.

Each stands in a network of its own: all of 127.0.0.0/8 is this machine's, and a client may choose from which of it it calls.
"""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import urllib3
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from packetfs_compute.executor import execute
from packetfs_compute.settings import Settings
from support.reading import OPEN

Behaviour = Callable[["Volunteer", dict[str, Any]], Awaitable[Mapping[str, Any] | None]]


def address_of(number: int) -> str:
    """An address of this machine whose /24 no other number below 65,000 shares."""
    return f"127.{1 + number // 250}.{1 + number % 250}.1"


async def honest(volunteer: "Volunteer", request: dict[str, Any]) -> Mapping[str, Any]:
    """Compute it, in a thread."""
    return await asyncio.to_thread(execute, request, volunteer.settings)


async def lying(volunteer: "Volunteer", request: dict[str, Any]) -> Mapping[str, Any]:
    """Say another value."""
    answer = dict(await honest(volunteer, request))
    first = dict(answer["results"][0])
    first["value"] = first["value"] ^ 1 if isinstance(first["value"], int) else f"{int(first['value'], 16) ^ 1:016x}"
    return {**answer, "results": [first, *answer["results"][1:]]}


async def leaving(volunteer: "Volunteer", request: dict[str, Any]) -> None:
    """Go without a word."""
    assert volunteer.socket is not None
    await volunteer.socket.close()


async def mute(volunteer: "Volunteer", request: dict[str, Any]) -> None:
    """Say nothing more."""
    await asyncio.Event().wait()


@dataclass
class Volunteer:
    """One browser of the gateway at ``url``, calling from ``address``."""

    url: str
    address: str
    behave: Behaviour = honest
    slots: int = 4
    key: str | None = None
    settings: Settings = OPEN
    asked: list[dict[str, Any]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    socket: ClientConnection | None = None
    closed: tuple[int, str] | None = None
    """How the gateway closed the connection, if it did."""

    def ticket(self) -> str:
        """Ask for a ticket from where the browser stands."""
        fields = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        with urllib3.PoolManager(source_address=(self.address, 0), retries=False, timeout=10) as pool:
            answer = pool.request("POST", f"{self.url}/v1/browsers/tickets", headers=fields)
        assert answer.status == 201, answer.data
        return str(answer.json()["ticket"])

    def opening(self, **more: Any) -> connect:
        """The WebSocket, to be opened."""
        options: dict[str, Any] = {"origin": self.url, "compression": None, "local_addr": (self.address, 0)}
        return connect(f"ws{self.url.removeprefix('http')}/v1/browsers", **{**options, **more})

    def hello(self, ticket: str) -> str:
        """The first frame."""
        return json.dumps({"type": "hello", "version": 1, "ticket": ticket, "kernel": "none", "slots": self.slots})

    async def live(self, joined: Callable[[], None] = lambda: None) -> None:
        """Come in, compute until the connection ends, and say how it did."""
        ticket = await asyncio.to_thread(self.ticket)
        async with self.opening() as socket:
            self.socket = socket
            await socket.send(self.hello(ticket))
            working: set[asyncio.Task[None]] = set()
            try:
                async for text in socket:
                    frame = json.loads(text)
                    if frame["type"] == "welcome":
                        joined()
                    elif frame["type"] == "cancel":
                        self.cancelled.append(frame["lease"])
                    elif frame["type"] == "run":
                        self.asked.append(frame["request"])
                        task = asyncio.create_task(self._answer(socket, frame["lease"], frame["request"]))
                        working.add(task)
                        task.add_done_callback(working.discard)
            except ConnectionClosed:
                pass
            finally:
                for task in working:
                    task.cancel()
                if socket.close_code is not None:
                    self.closed = (socket.close_code, socket.close_reason or "")

    async def _answer(self, socket: ClientConnection, lease: str, request: dict[str, Any]) -> None:
        answer = await self.behave(self, request)
        if answer is not None:
            with suppress(ConnectionClosed):
                await socket.send(json.dumps({"type": "answer", "lease": lease, "answer": answer}))


@contextmanager
def lent(*volunteers: Volunteer) -> Iterator[None]:
    """Have browsers in a thread's event loop, from when all are welcome until the block ends."""
    welcome, over = threading.Semaphore(0), threading.Event()
    loop = asyncio.new_event_loop()
    failures: list[BaseException] = []

    async def run() -> None:
        tasks = [asyncio.create_task(one.live(welcome.release)) for one in volunteers]
        await asyncio.to_thread(over.wait)
        for task in tasks:
            task.cancel()
        failures.extend(
            one
            for one in await asyncio.gather(*tasks, return_exceptions=True)
            if isinstance(one, Exception) and not isinstance(one, OSError)
        )

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        for _ in volunteers:
            assert welcome.acquire(timeout=20), "a browser was not let in"
        yield
    finally:
        over.set()
        thread.join(20)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    assert not failures, failures
