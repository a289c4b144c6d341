"""The first result stands, and storing one strikes its job out: Celery's backend calls on a real server."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery import Celery, chord, states
from celery.app.task import Context
from celery.backends.redis import RedisBackend
from celery.exceptions import BackendStoreError
from celery.result import AsyncResult, ResultSet
from support.processes import wait_until

from packetfs_compute.broker import results
from packetfs_compute.broker.ledger import Ledger
from packetfs_compute.broker.letters import decoded, read_body
from packetfs_compute.broker.results import ResultBackend
from packetfs_compute.errors import Internal, JobError, SourceFailed
from packetfs_compute.names import LEDGER_JOBS, LEDGER_LEASES, LEDGER_OPEN, LEDGER_RUNS


@pytest.fixture
def backend(app: Celery) -> ResultBackend:
    assert isinstance(app.backend, ResultBackend)
    return app.backend


def request(job_id: str = "j", **more: Any) -> Any:
    return Context({"id": job_id, "task": "packetfs.test", "delivery_info": {}, **more})


def store(backend: ResultBackend, state: str, value: Any = None, **more: Any) -> None:
    """Store what a worker would for a state."""
    of = request(**more)
    if state == states.SUCCESS:
        backend.mark_as_done("j", value, request=of)
    elif state == states.FAILURE:
        backend.mark_as_failure("j", value or SourceFailed("it broke"), request=of)
    elif state == states.REVOKED:
        backend.mark_as_revoked("j", "on request", request=of)
    elif state == states.RETRY:
        backend.mark_as_retry("j", value or SourceFailed("again"), request=of)
    else:
        backend.mark_as_started("j", pid=1)


def enter(backend: ResultBackend) -> None:
    backend.ledger.enter("j", "packetfs.local", "{}")


ALL = [states.STARTED, states.RETRY, states.SUCCESS, states.FAILURE, states.REVOKED]
FINAL = [states.SUCCESS, states.FAILURE, states.REVOKED]


@pytest.mark.parametrize("second", ALL)
@pytest.mark.parametrize("first", FINAL)
def test_the_first_result_stands(backend: ResultBackend, redis_client: Any, first: str, second: str) -> None:
    enter(backend)
    store(backend, first)
    kept = redis_client.get("celery-task-meta-j")
    assert json.loads(kept)["status"] == first
    if second != states.STARTED or first == states.SUCCESS:  # Celery gives no request with STARTED here
        store(backend, second)
        assert redis_client.get("celery-task-meta-j") == kept


@pytest.mark.parametrize("second", FINAL)
@pytest.mark.parametrize("first", [states.STARTED, states.RETRY])
def test_a_state_on_the_way_gives_way_to_a_result(backend: ResultBackend, first: str, second: str) -> None:
    enter(backend)
    store(backend, first)
    assert backend.get_state("j") == first
    assert backend.ledger.open_count() == 1
    store(backend, second)
    assert AsyncResult("j", backend=backend).state == second
    assert backend.ledger.open_count() == 0


@pytest.mark.parametrize("second", FINAL)
@pytest.mark.parametrize("first", [states.FAILURE, states.REVOKED])
def test_a_job_that_is_published_again_may_end_otherwise(backend: ResultBackend, first: str, second: str) -> None:
    store(backend, first)
    enter(backend)
    store(backend, second, {"value": 1} if second == states.SUCCESS else None)
    assert backend.get_state("j") == second


def test_a_success_stands_even_then(backend: ResultBackend) -> None:
    store(backend, states.SUCCESS, 1)
    enter(backend)
    store(backend, states.FAILURE)
    assert backend.get_result("j") == 1
    assert backend.ledger.open_count() == 0


@pytest.mark.parametrize("of", [{"task": "others.test"}, {"packetfs_ledger": False}])
def test_who_keeps_no_ledger_has_celerys_rule(backend: ResultBackend, of: dict[str, Any]) -> None:
    store(backend, states.FAILURE, **of)
    store(backend, states.SUCCESS, 2, **of)
    assert backend.get_result("j") == 2


def test_storing_is_one_round_trip_and_leaves_nothing_open(
    backend: ResultBackend, redis_client: Any, commands: Callable[[], dict[str, int]]
) -> None:
    store(backend, states.SUCCESS, 0)
    redis_client.flushdb()
    enter(backend)
    backend.ledger.lease("j", 60)
    redis_client.hset(LEDGER_RUNS, "j", 1)
    redis_client.config_resetstat()
    store(backend, states.SUCCESS, {"value": 7}, reply_to="somebody of Celery")
    assert commands() == {"evalsha": 1, "get": 1, "set": 1, "publish": 1, "zrem": 2, "hdel": 2}
    assert redis_client.exists(LEDGER_OPEN, LEDGER_JOBS, LEDGER_RUNS, LEDGER_LEASES) == 0


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # Celery's
def test_what_is_stored_is_what_celery_stores(app: Celery, backend: ResultBackend, redis_client: Any) -> None:
    theirs = RedisBackend(app=app, url=app.conf.result_backend.removeprefix("redis+"))
    for state, value in ((states.SUCCESS, {"value": 1}), (states.FAILURE, Internal("no", {"attempts": [1]}))):
        stored = []
        for one in (backend, theirs):
            redis_client.flushdb()
            one.store_result("j", value, state, traceback="trace", request=request(group="g", parent_id="p"))
            stored.append({**json.loads(redis_client.get("celery-task-meta-j")), "date_done": None})
            assert 86_000 < redis_client.ttl("celery-task-meta-j") <= 86_400
        assert stored[0] == stored[1]
        assert theirs.get_task_meta("j")["status"] == state
    theirs.client.connection_pool.disconnect()


def test_a_waiter_is_told(app: Celery, backend: ResultBackend, redis_client: Any) -> None:
    result = app.tasks["packetfs.test"].apply_async(("u",), task_id="j")
    store(backend, states.FAILURE, Internal("it went wrong", {"job_id": "j"}))
    with pytest.raises(Internal) as caught:
        result.get(timeout=5)
    assert caught.value.details == {"job_id": "j"}


@pytest.mark.parametrize("state", FINAL)
def test_a_job_whose_result_nobody_wants_is_struck_out(backend: ResultBackend, redis_client: Any, state: str) -> None:
    enter(backend)
    of = request(ignore_result=True)
    if state == states.SUCCESS:
        backend.mark_as_done("j", 1, of)
    elif state == states.FAILURE:
        backend.mark_as_failure("j", SourceFailed("it broke"), request=of, store_result=False)
    else:
        backend.mark_as_revoked("j", request=of, store_result=False)
    assert redis_client.exists(LEDGER_OPEN, "celery-task-meta-j") == 0


def test_a_part_of_a_chord_is_struck_out_when_the_chord_has_counted_it(
    app: Celery, backend: ResultBackend, redis_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = app.tasks["packetfs.test"]
    body = chord([job.s(1), job.s(2)])(job.s("body"))
    parts = [decoded(item) for item in redis_client.lrange("packetfs.local", 0, -1)]
    requests = [Context({**part["headers"], **read_body(part)[2], "delivery_info": {}}) for part in parts if part]
    first, second = requests
    with monkeypatch.context() as patch:
        patch.setattr(backend, "on_chord_part_return", _dies)
        with pytest.raises(KeyboardInterrupt):
            backend.mark_as_done(first.id, 1, first)
    assert backend.get_result(first.id) == 1
    assert not backend.is_finished(first.id)
    for one in (first, second):
        backend.mark_as_done(one.id, 1, one)
        assert backend.is_finished(one.id)
    assert redis_client.zrange(LEDGER_OPEN, 0, -1) == [body.id.encode()]


def _dies(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_failed_part_of_a_chord_is_struck_out_too(app: Celery, backend: ResultBackend, redis_client: Any) -> None:
    job = app.tasks["packetfs.test"]
    body = chord([job.s(1), job.s(2)])(job.s("body"))
    for item in redis_client.lrange("packetfs.local", 0, -1):
        part = decoded(item)
        assert part is not None
        of = Context({**part["headers"], **read_body(part)[2], "delivery_info": {}})
        backend.mark_as_failure(of.id, SourceFailed("it broke"), request=of)
    assert backend.ledger.open_count() == 0
    assert body.state == states.FAILURE


@pytest.mark.parametrize("state", FINAL)
def test_a_job_is_finished_when_its_result_is_stored_and_it_is_not_open(backend: ResultBackend, state: str) -> None:
    assert not backend.is_finished("j")
    enter(backend)
    assert not backend.is_finished("j")
    store(backend, states.RETRY)
    assert not backend.is_finished("j")
    store(backend, state)
    assert backend.is_finished("j")
    enter(backend)
    assert not backend.is_finished("j")


@pytest.mark.parametrize("stored", [None, b"", b"{}", b"null", b"garbage", b"\xff", b'{"status": "STARTED"}'])
def test_what_cannot_be_read_is_no_result(backend: ResultBackend, stored: bytes | None) -> None:
    assert not backend.is_final(stored)


def test_a_result_that_is_too_large_is_celerys_error(backend: ResultBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_MAX_BYTES", 100)
    with pytest.raises(BackendStoreError):
        store(backend, states.SUCCESS, "x" * 200)


def test_results_that_never_expire(make: Callable[..., Celery], redis_client: Any) -> None:
    backend: Any = make(result_expires=None).backend
    store(backend, states.SUCCESS, 1)
    assert redis_client.ttl("celery-task-meta-j") == -1


def test_results_are_not_compressed_for_the_script_reads_them(make: Callable[..., Celery]) -> None:
    with pytest.warns(UserWarning, match="result_compression setting is ignored"):
        backend: Any = make(result_compression="gzip").backend
    store(backend, states.FAILURE)
    store(backend, states.SUCCESS, 1)
    assert backend.get_state("j") == states.FAILURE


def test_a_restarted_server_knows_no_scripts(backend: ResultBackend, redis_client: Any) -> None:
    store(backend, states.FAILURE)
    redis_client.script_flush()
    enter(backend)
    store(backend, states.SUCCESS, 3)
    assert backend.get_result("j") == 3


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://:secret@host:6380/2", {"host": "host", "port": 6380, "db": 2, "password": "secret"}),
        (
            "rediss://u:secret@host/1?ssl_cert_reqs=required",
            {"host": "host", "db": 1, "username": "u", "password": "secret"},
        ),
        ("redis+socket:///run/redis.sock", {"path": "/run/redis.sock", "db": 0}),
        (
            "redis+socket://:secret@/run/redis.sock?virtual_host=3",
            {"path": "/run/redis.sock", "db": 3, "password": "secret"},
        ),
    ],
)
def test_urls_are_celerys(make: Callable[..., Celery], url: str, expected: dict[str, Any]) -> None:
    backend: Any = make(result_backend=url).backend
    assert type(backend) is ResultBackend
    assert {key: backend.connparams.get(key) for key in expected} == expected
    assert "secret" not in backend.as_uri()


def test_other_backends_are_left_alone(make: Callable[..., Celery]) -> None:
    assert not isinstance(make(result_backend="cache+memory://").backend, ResultBackend)


def test_an_error_of_the_job_comes_back_as_it_is(app: Celery, backend: ResultBackend, ledger: Ledger) -> None:
    store(backend, states.FAILURE, SourceFailed("the source broke off", {"attempts": [{"substrate": "local"}]}))
    with pytest.raises(JobError) as caught:
        AsyncResult("j", app=app).get(timeout=5)
    assert caught.value.attempts == [{"substrate": "local"}]


@pytest.mark.parametrize("alone", [True, False])
def test_a_result_is_found_though_its_news_is_lost(
    app: Celery, backend: ResultBackend, redis_client: Any, commands: Callable[[], dict[str, int]], alone: bool
) -> None:
    store(backend, states.SUCCESS, "v")
    stored = redis_client.get("celery-task-meta-j")
    redis_client.delete("celery-task-meta-j")
    redis_client.config_resetstat()

    def store_silently() -> None:
        wait_until(lambda: any(commands().get(name) for name in ("get", "mget")), "it has looked")
        redis_client.set("celery-task-meta-j", stored)

    result = AsyncResult("j", app=app)
    with ThreadPoolExecutor(1) as pool:
        silent = pool.submit(store_silently)
        got = (result if alone else ResultSet([result], app=app)).get(timeout=20)
        silent.result()
    assert got == ("v" if alone else ["v"])
