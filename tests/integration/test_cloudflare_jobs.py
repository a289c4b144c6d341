"""The Worker's Durable Objects in workerd: a job runs once, whatever happens to those who ask for it."""

import json
import secrets
import socket
import sqlite3
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.misbehaving import Exchange, RawServer, Script, honest
from support.processes import STALL_S, wait_until
from support.reading import DATA
from support.workerd import WorkerBuild, WorkerdClient, WorkerdServer

from packetfs_compute import kernels
from packetfs_compute.signature import HEADER

pytestmark = pytest.mark.integration

CRC = kernels.crc32c(DATA)


def job(url: str, job_id: str | None = None, timeout: int = 20_000, **more: Any) -> dict[str, Any]:
    """A job whose id nobody has had, unless one is given."""
    program = {"data_url": url, "op": "crc32c", **more}
    return {"jobId": job_id or f"j-{secrets.token_hex(8)}", "program": program, "timeout": timeout}


@pytest.fixture(scope="module")
def client(workerd_server: WorkerdServer) -> Iterator[WorkerdClient]:
    made = WorkerdClient(workerd_server)
    yield made
    made.http.clear()


@contextmanager
def holding(then: Script | None = None) -> Iterator[tuple[RawServer, threading.Event]]:
    """A source that holds its readers until the event is set, and then answers well, or by ``then``."""
    go, after = threading.Event(), then or honest(DATA)

    def script(exchange: Exchange) -> object:
        go.wait(30)
        return after(exchange)

    with RawServer(script) as server:
        try:
            yield server, go
        finally:
            go.set()


def status(code: str) -> Script:
    return lambda exchange: exchange.send(f"HTTP/1.1 {code}\r\nContent-Length: 0\r\n\r\n".encode())


def test_a_repeated_job_does_not_reach_the_source(client: WorkerdClient) -> None:
    with RawServer(honest(DATA)) as source:
        document = job(source.url())
        first, second, third = (client.post(document).json() for _ in range(3))
        assert first["results"] == [{"op": "crc32c", "value": CRC}]
        assert first == second == third
        assert len(source.heads) == 1


def test_a_job_without_an_id_is_nobody_elses(client: WorkerdClient) -> None:
    with RawServer(honest(DATA)) as source:
        document = {**job(source.url()), "jobId": None}
        assert [client.post(document).json()["results"][0]["value"] for _ in range(2)] == [CRC, CRC]
        assert len(source.heads) == 2


SIGNATURES = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a&X-Amz-Date={0}&X-Amz-Expires=60&X-Amz-SignedHeaders=h"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (f"/o?{SIGNATURES.format(1)}&X-Amz-Signature=aa", f"/o?{SIGNATURES.format(2)}&X-Amz-Signature=bb", True),
        (
            f"/o?v=1&{SIGNATURES.format(1)}&X-Amz-Signature=aa",
            f"/o?v=2&{SIGNATURES.format(2)}&X-Amz-Signature=bb",
            False,
        ),
        (
            f"/o?{SIGNATURES.format(1)}",
            f"/o?{SIGNATURES.format(2)}",
            False,
        ),  # no signature: parameters of some other kind
        ("/o?versionId=1", "/o?versionId=2", False),
        ("/o#1", "/o#2", True),
    ],
)
def test_signing_a_url_anew_is_the_same_job(client: WorkerdClient, first: str, second: str, same: bool) -> None:
    with RawServer(honest(DATA)) as source:
        document = job(source.url(first))
        assert client.post(document).json()["success"]
        document["program"]["data_url"] = source.url(second)
        assert client.post(document).json()["success"]
        assert len(source.heads) == (1 if same else 2)


@pytest.mark.parametrize(
    "change", [{"offset": 10}, {"length": 10}, {"op": "fnv64"}, {"op": "add", "imm": 1}, {"etag": '"v1"'},
               {"op": None, "ops": [{"op": "crc32c"}, {"op": "crc32c"}]}],
    ids=str,
)  # fmt: skip
def test_the_same_id_with_another_program_is_another_job(client: WorkerdClient, change: dict[str, Any]) -> None:
    with RawServer(honest(DATA)) as source:
        document = job(source.url())
        first = client.post(document).json()
        other = client.post({**document, "program": {**document["program"], **change}}).json()
        assert first["success"]
        assert other["success"]
        assert len(source.heads) == 2
        assert client.post(document).json() == first


def test_another_timeout_is_the_same_job(client: WorkerdClient) -> None:
    with RawServer(honest(DATA)) as source:
        document = job(source.url())
        assert client.post(document).json() == client.post({**document, "timeout": 5_000}).json()
        assert len(source.heads) == 1


def test_duplicates_at_the_same_time_compute_once(worker_build: WorkerBuild, tmp_path: Path) -> None:
    with (
        WorkerdServer(tmp_path, worker_build, PACKETFS_MAX_CONCURRENCY="20") as server,
        holding() as (source, go),
        ThreadPoolExecutor(20) as threads,
    ):
        client, document = WorkerdClient(server), job(source.url())
        answers = [threads.submit(client.post, document) for _ in range(20)]
        wait_until(lambda: source.heads, "one at the source")
        time.sleep(0.3)  # for the others to get there, if they did
        assert len(source.heads) == 1
        go.set()
        found = [answer.result().json() for answer in answers]
        assert found == [found[0]] * 20
        assert found[0]["results"][0]["value"] == CRC
        assert len(source.heads) == 1
        counted = {"jobs": 1, "failures": 0, "bytes": len(DATA), "cacheHits": 0, "repeats": 19}
        wait_until(lambda: client.stats() == {"iad": counted}, f"the counts {counted}", 5)


def test_a_batch_of_one_job_computes_once(client: WorkerdClient) -> None:
    with RawServer(honest(DATA)) as source:
        document = job(source.url())
        results = client.post({"jobs": [document] * 8}, "/compute/batch").json()["results"]
        assert [found["results"][0]["value"] for found in results] == [CRC] * 8
        assert len(source.heads) == 1


def test_a_failure_is_not_remembered(client: WorkerdClient) -> None:
    with RawServer(honest(DATA)) as source:
        source.routes["/object"] = status("404 Not Found")
        document = job(source.url())
        for _ in range(2):
            assert client.post(document).json()["error"]["type"] == "source_not_found"
        assert len(source.heads) == 2
        del source.routes["/object"]
        assert client.post(document).json()["results"][0]["value"] == CRC


def test_those_who_wait_for_a_run_that_fails_try_themselves(client: WorkerdClient) -> None:
    """One at a time: what the first met, such as a URL that has expired, may not meet the second."""
    good, bad = honest(DATA), status("404 Not Found")
    with (
        holding(lambda exchange: bad(exchange) if exchange.number == 0 else good(exchange)) as (source, go),
        ThreadPoolExecutor(5) as threads,
    ):
        document = job(source.url())
        answers = [threads.submit(client.post, document) for _ in range(5)]
        wait_until(lambda: source.heads, "one at the source")
        time.sleep(0.3)
        go.set()
        found = [answer.result().json() for answer in answers]
        assert sorted(answer["success"] for answer in found) == [False, True, True, True, True]
        assert len(source.heads) == 2


def test_who_waits_waits_no_longer_than_its_own_timeout(client: WorkerdClient) -> None:
    with holding() as (source, go), ThreadPoolExecutor(1) as threads:
        document = job(source.url())
        first = threads.submit(client.post, document)
        wait_until(lambda: source.heads, "the first at the source")
        started = time.monotonic()
        late = client.post({**document, "timeout": 300})
        assert time.monotonic() - started < 0.3 + STALL_S
        assert (late.status, late.json()["error"]["type"], late.json()["jobId"]) == (504, "timeout", document["jobId"])
        go.set()
        assert first.result().json()["success"]
        assert len(source.heads) == 1


def test_what_was_waited_is_part_of_the_timeout(client: WorkerdClient) -> None:
    """The second waits for the first, which fails, and then has only what is left of its time."""
    with holding(status("404 Not Found")) as (source, go), ThreadPoolExecutor(2) as threads:
        document = job(source.url())
        first = threads.submit(client.post, document)
        wait_until(lambda: source.heads, "the first at the source")
        second = threads.submit(client.post, {**document, "timeout": 6_000})
        time.sleep(5)
        source.routes["/object"] = lambda exchange: exchange.wait(20)
        started = time.monotonic()
        go.set()
        assert first.result().status == 404
        assert (second.result().status, second.result().json()["error"]["type"]) == (504, "timeout")
        assert time.monotonic() - started < 5.9
        assert len(source.heads) == 2


def test_a_client_that_hangs_up_holds_nobody_up(client: WorkerdClient) -> None:
    with holding() as (source, go), ThreadPoolExecutor(1) as threads:
        document = job(source.url())
        body = json.dumps(document).encode()
        head = f"POST /compute HTTP/1.1\r\nHost: x\r\n{HEADER}: {client.header(body)}\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", client.server.port), 20) as sock:
            sock.sendall(head.encode() + body)
            wait_until(lambda: source.heads, "its run at the source")
        second = threads.submit(client.post, document)
        time.sleep(0.2)
        go.set()
        assert second.result().json()["results"][0]["value"] == CRC


def test_a_run_whose_client_left_goes_on_for_those_who_wait(client: WorkerdClient) -> None:
    with holding() as (source, go), ThreadPoolExecutor(1) as threads:
        document = job(source.url())
        body = json.dumps(document).encode()
        head = f"POST /compute HTTP/1.1\r\nHost: x\r\n{HEADER}: {client.header(body)}\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", client.server.port), 20) as sock:
            sock.sendall(head.encode() + body)
            wait_until(lambda: source.heads, "its run at the source")
            second = threads.submit(client.post, document)
            time.sleep(0.5)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        time.sleep(0.5)  # a run that nobody waits for is stopped by now (test_cancel.py)
        go.set()
        assert second.result().json()["results"][0]["value"] == CRC
        assert len(source.heads) == 1


def test_a_run_that_dies_holds_up_the_others_for_one_lease(client: WorkerdClient) -> None:
    """Whoever claims a job and is not heard of again, loses it."""
    key = secrets.token_hex(32)
    ask = client.server.ask
    assert ask("JOBS", "0", "claim", key, 1_000)["kind"] == "lease"
    assert ask("JOBS", "0", "claim", key, 100)["kind"] == "late"
    started = time.monotonic()
    with ThreadPoolExecutor(3) as threads:
        claims = [threads.submit(ask, "JOBS", "0", "claim", key, 40_000) for _ in range(3)]
        wait_until(lambda: any(claim.done() for claim in claims), "a lease for one of them", 10 + STALL_S)
        assert time.monotonic() - started > 5
        (granted,) = [claim.result() for claim in claims if claim.done()]
        assert granted["kind"] == "lease"
        outcome = {"answer": '"found"', "region": "fra", "bytes": 7, "hit": False}
        ask("JOBS", "0", "finish", key, granted["lease"], outcome)
        found = [claim.result() for claim in claims]
    assert sorted(claim["kind"] for claim in found) == ["answer", "answer", "lease"]
    assert ask("JOBS", "0", "claim", key, 0) == {"kind": "answer", "answer": '"found"'}


def test_a_run_that_takes_longer_than_a_lease_keeps_it(client: WorkerdClient) -> None:
    with holding() as (source, go), ThreadPoolExecutor(2) as threads:
        document = job(source.url(), timeout=30_000)
        answers = [threads.submit(client.post, document) for _ in range(2)]
        wait_until(lambda: source.heads, "one at the source")
        time.sleep(12)
        go.set()
        assert [answer.result().json()["results"][0]["value"] for answer in answers] == [CRC, CRC]
        assert len(source.heads) == 1


def test_the_lease_of_another_is_not_given_up(client: WorkerdClient) -> None:
    """A run that was thought dead may end after all: its failure is its own, its success is everybody's."""
    key, ask = secrets.token_hex(32), client.server.ask
    failed = {"answer": None, "region": "fra", "bytes": 0, "hit": False}
    ask("JOBS", "1", "claim", key, 0)
    ask("JOBS", "1", "finish", key, "not this lease", failed)
    assert ask("JOBS", "1", "claim", key, 0)["kind"] == "late"
    ask("JOBS", "1", "finish", key, "not this lease", {**failed, "answer": "7"})
    assert ask("JOBS", "1", "claim", key, 0) == {"kind": "answer", "answer": "7"}


def test_results_are_bounded_in_number_and_size(client: WorkerdClient) -> None:
    ask, region = client.server.ask, f"x-{secrets.token_hex(4)}"
    outcome = {"answer": "7", "region": region, "bytes": 3, "hit": True}
    keys = [secrets.token_hex(8) for _ in range(16_384 + 4_097)]
    client.server.ask_often("JOBS", "2", "finish", [(key, "", outcome) for key in keys])
    assert ask("JOBS", "2", "claim", keys[0], 0)["kind"] == "lease"
    assert ask("JOBS", "2", "claim", keys[-1], 0)["kind"] == "answer"
    ask("JOBS", "2", "finish", "long", "", {**outcome, "answer": "7" * 4097})
    assert ask("JOBS", "2", "claim", "long", 0)["kind"] == "lease"
    counts = ask("JOBS", "2", "counts")[region]
    assert counts == {"jobs": len(keys) + 1, "failures": 0, "bytes": 3 * (len(keys) + 1), "cacheHits": len(keys) + 1,
                      "repeats": 1}  # fmt: skip


def test_those_who_wait_are_bounded(client: WorkerdClient) -> None:
    key, ask = secrets.token_hex(32), client.server.ask_often
    (granted,) = ask("JOBS", "3", "claim", [(key, 0)])
    found = ask("JOBS", "3", "claim", [(key, 2_000)] * 1_001, at_once=1_001)
    assert granted["kind"] == "lease"
    assert [claim["kind"] for claim in found] == ["late"] * 1_000 + ["busy"]


def test_the_jobs_under_way_are_bounded(client: WorkerdClient) -> None:
    keys = [f"{at}-{secrets.token_hex(8)}" for at in range(10_001)]
    found = client.server.ask_often("JOBS", "4", "claim", [(key, 0) for key in keys])
    assert [claim["kind"] for claim in found] == ["lease"] * 10_000 + ["busy"]
    (again,) = client.server.ask_often("JOBS", "4", "claim", [(keys[-1], 15_000)])
    assert again["kind"] == "busy"


def test_results_expire_and_their_counts_stay(worker_build: WorkerBuild, tmp_path: Path) -> None:
    outcome = {"answer": "7", "region": "fra", "bytes": 5, "hit": False}
    with WorkerdServer(tmp_path, worker_build, PACKETFS_RESULT_TTL_S="1") as server:
        for key in ("a", "b"):
            server.ask("JOBS", "0", "finish", key, "", outcome)
        assert server.ask("JOBS", "0", "claim", "a", 0)["kind"] == "answer"
        wait_until(lambda: server.ask("JOBS", "0", "claim", "b", 0)["kind"] != "answer", "the result to expire", 5)
        server.ask("JOBS", "0", "finish", "c", "", outcome)  # opens a table, and drops the old one
        counts = server.ask("JOBS", "0", "counts")["fra"]
        assert (counts["jobs"], counts["bytes"]) == (3, 15)
        server.stop()
        server.start()
        assert server.ask("JOBS", "0", "counts")["fra"] == counts


def tables(server: WorkerdServer) -> set[str]:
    """The tables of results that are in the storage of any object."""
    found = set()
    for path in (server.folder / "storage").rglob("*.sqlite"):
        with closing(sqlite3.connect(path)) as database:
            rows = database.execute("SELECT name FROM sqlite_master WHERE name LIKE 'results%'")
            found.update(name for (name,) in rows)
    return found


def test_an_object_that_is_asked_no_more_is_emptied(worker_build: WorkerBuild, tmp_path: Path) -> None:
    with WorkerdServer(tmp_path, worker_build, PACKETFS_RESULT_TTL_S="1") as server:
        server.ask("JOBS", "0", "finish", "a", "", {"answer": "7", "region": "fra", "bytes": 5, "hit": False})
        wait_until(lambda: tables(server), "the table of the result")
        wait_until(lambda: not tables(server), "its end", 10)
        assert server.ask("JOBS", "0", "counts")["fra"]["jobs"] == 1


def test_nonces_are_bounded_and_expire(worker_build: WorkerBuild, tmp_path: Path) -> None:
    with WorkerdServer(tmp_path, worker_build, PACKETFS_MAX_NONCES="3") as server:

        def admit(nonce: str, until: float) -> Any:
            return server.ask("NONCES", "0", "admit", nonce, int(until))

        now = time.time()
        assert [admit(nonce, now + 60) for nonce in ("a", "b", "a", "c", "d", "b")] == [
            "new", "new", "used", "new", "full", "used",
        ]  # fmt: skip
        assert admit("e", now - 5) == "used"
        server.kill()
        server.start()
        assert [admit(nonce, now + 60) for nonce in ("a", "d")] == ["used", "full"]


def test_room_for_nonces_comes_back(worker_build: WorkerBuild, tmp_path: Path) -> None:
    with WorkerdServer(tmp_path, worker_build, PACKETFS_MAX_NONCES="2") as server:
        until = int(time.time()) + 2
        assert [server.ask("NONCES", "0", "admit", nonce, until) for nonce in "abc"] == ["new", "new", "full"]
        wait_until(
            lambda: server.ask("NONCES", "0", "admit", "d", int(time.time()) + 60) == "new", "room for a nonce", 10
        )
        assert server.ask("NONCES", "0", "admit", "a", until) == "used"


def test_a_nonce_that_has_expired_may_sign_anew(client: WorkerdClient) -> None:
    nonce, now = secrets.token_hex(16), int(time.time())
    assert client.server.ask("NONCES", "0", "admit", nonce, now + 1) == "new"
    wait_until(lambda: time.time() > now + 2, "its end")
    assert client.server.ask("NONCES", "0", "admit", nonce, now + 60) == "new"
    assert client.server.ask("NONCES", "0", "admit", nonce, now + 60) == "used"
