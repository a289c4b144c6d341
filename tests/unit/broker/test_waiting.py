"""A client hears by one channel of all that it has published, and misses nothing: Celery's own handles on a real server."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery import Celery, states
from celery.app.task import Context
from celery.exceptions import TimeoutError as WaitedTooLong
from celery.result import AsyncResult
from support.processes import wait_until

from packetfs_compute.broker import waiting
from packetfs_compute.broker.results import ResultBackend
from packetfs_compute.names import JOB_STATE, REPLIES


@pytest.fixture(autouse=True)
def _no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is found is found by news, or by a look that has a reason."""
    monkeypatch.setattr(waiting, "_LOOK_S", 1_000.0)


@pytest.fixture
def client(app: Celery) -> ResultBackend:
    """A client; what workers do is done with :func:`store`."""
    assert isinstance(app.backend, ResultBackend)
    return app.backend


@pytest.fixture
def worker(make: Callable[..., Celery]) -> ResultBackend:
    backend = make().backend
    assert isinstance(backend, ResultBackend)
    return backend


def published(client: ResultBackend, job_id: str) -> AsyncResult[Any]:
    """Return the handle of a job that was published as this client's."""
    mark = client.mark()
    client.on_task_call(None, job_id)
    handle = AsyncResult(job_id, backend=client, app=client.app)
    client.put_mark(mark, (handle,))
    return handle


def store(worker: ResultBackend, client: ResultBackend | None, job_id: str, value: Any) -> None:
    reply_to = client.mark()[0] if client is not None else "of Celery"
    request = Context({"id": job_id, "task": "packetfs.test", "delivery_info": {}, "reply_to": reply_to})
    worker.mark_as_done(job_id, value, request=request)


def test_one_subscription_serves_all_jobs(
    client: ResultBackend, worker: ResultBackend, redis_client: Any, commands: Callable[[], dict[str, int]]
) -> None:
    client.result_consumer.hear()
    redis_client.config_resetstat()
    for n in range(20):
        handle = published(client, f"j{n}")
        store(worker, client, f"j{n}", n)
        assert handle.get(timeout=20) == n
        del handle
    told = commands()
    assert told.pop("evalsha") == 20
    assert not {"subscribe", "unsubscribe", "mget"} & set(told)
    assert told["get"] == 20  # the script's


def test_results_that_came_while_another_was_waited_for_are_there(client: ResultBackend, worker: ResultBackend) -> None:
    client.result_consumer.hear()
    handles = [published(client, f"j{n}") for n in range(20)]
    for n in range(20):
        store(worker, client, f"j{n}", n)
    assert [handle.get(timeout=20) for handle in reversed(handles)] == list(reversed(range(20)))


def test_a_job_published_before_the_channel_was_heard_is_looked_for(
    client: ResultBackend, worker: ResultBackend, redis_client: Any
) -> None:
    mark = client.mark()
    handle = AsyncResult("j", backend=client, app=client.app)
    client.put_mark(mark, (handle,))
    store(worker, client, "j", 7)
    assert handle.get(timeout=20) == 7
    assert redis_client.pubsub_channels(JOB_STATE + "*") == [(JOB_STATE + mark[0]).encode()]


def test_a_result_of_somebody_else_is_subscribed_to_as_in_celery(
    client: ResultBackend, worker: ResultBackend, redis_client: Any
) -> None:
    client.result_consumer.hear()
    handle = AsyncResult("j", backend=client, app=client.app)
    with ThreadPoolExecutor(1) as pool:
        got = pool.submit(handle.get, timeout=20)
        wait_until(lambda: (JOB_STATE + "j").encode() in redis_client.pubsub_channels("*"), "it is subscribed to")
        store(worker, None, "j", 7)
        assert got.result() == 7
    wait_until(lambda: (JOB_STATE + "j").encode() not in redis_client.pubsub_channels("*"), "it is not any more")


def test_a_second_handle_of_a_job_finds_what_the_first_was_told(client: ResultBackend, worker: ResultBackend) -> None:
    client.result_consumer.hear()
    handle = published(client, "j")
    store(worker, client, "j", 7)
    assert handle.get(timeout=20) == 7
    assert AsyncResult("j", backend=client, app=client.app).get(timeout=20) == 7


def test_what_was_told_while_the_connection_was_lost_is_looked_for(
    client: ResultBackend, worker: ResultBackend, redis_client: Any
) -> None:
    client.result_consumer.hear()
    handles = [published(client, f"j{n}") for n in range(3)]
    with ThreadPoolExecutor(1) as pool:
        got = pool.submit(handles[0].get, timeout=20)
        for _ in range(2):  # it is told again after each loss
            assert redis_client.execute_command("CLIENT", "KILL", "TYPE", "pubsub") >= 1
            wait_until(lambda: redis_client.pubsub_channels("*"), "it has subscribed again")
        redis_client.set(JOB_STATE + "j0", worker.encode(_stored("j0", 0)))  # nobody tells of it
        assert redis_client.execute_command("CLIENT", "KILL", "TYPE", "pubsub") >= 1
        assert got.result() == 0
    redis_client.set(JOB_STATE + "j1", worker.encode(_stored("j1", 1)))
    assert handles[1].get(timeout=20) == 1
    late = published(client, "late")
    store(worker, client, "late", 5)
    store(worker, client, "j2", 2)
    assert (late.get(timeout=20), handles[2].get(timeout=20)) == (5, 2)


@pytest.mark.parametrize("lost_before", [False, True])
def test_a_connection_that_was_lost_while_nobody_waited(
    client: ResultBackend, worker: ResultBackend, redis_client: Any, lost_before: bool
) -> None:
    client.result_consumer.hear()
    if lost_before:  # while somebody waits, and then Celery connects again
        first = published(client, "first")
        with ThreadPoolExecutor(1) as pool:
            got = pool.submit(first.get, timeout=20)
            redis_client.set(JOB_STATE + "first", worker.encode(_stored("first", 1)))
            assert redis_client.execute_command("CLIENT", "KILL", "TYPE", "pubsub") == 1
            assert got.result() == 1
    handle = published(client, "j")
    assert redis_client.execute_command("CLIENT", "KILL", "TYPE", "pubsub") == 1
    store(worker, client, "j", 7)  # nobody hears
    store(worker, None, "others", 8)
    assert (
        AsyncResult("others", backend=client, app=client.app).get(timeout=20) == 8
    )  # subscribed to, so connected again
    assert handle.get(timeout=20) == 7


def test_a_subscription_that_celery_has_given_up_is_made_anew(client: ResultBackend, worker: ResultBackend) -> None:
    client.result_consumer.hear()
    client.result_consumer._pubsub = None  # what it leaves when it could not connect again
    handle = published(client, "j")
    store(worker, client, "j", 7)
    assert handle.get(timeout=20) == 7
    handle = published(client, "k")
    with ThreadPoolExecutor(1) as pool:
        got = pool.submit(handle.get, timeout=20)
        store(worker, client, "k", 8)
        assert got.result() == 8


def _stored(job_id: str, value: Any) -> dict[str, Any]:
    return {"status": states.SUCCESS, "result": value, "traceback": None, "children": [], "task_id": job_id}


def test_more_results_than_are_kept_unasked_for(client: ResultBackend, worker: ResultBackend) -> None:
    client._pending_messages.maxsize = 4
    client.result_consumer.hear()
    handles = [published(client, f"j{n}") for n in range(20)]
    for n in range(20):
        store(worker, client, f"j{n}", n)
    assert handles[-1].get(timeout=20) == 19
    assert [handle.get(timeout=20) for handle in handles] == list(range(20))


def test_a_job_that_has_no_result_is_waited_for_no_longer_than_is_asked(client: ResultBackend) -> None:
    client.result_consumer.hear()
    with pytest.raises(WaitedTooLong):
        published(client, "j").get(timeout=0.1)


def test_a_child_process_has_a_channel_of_its_own(
    client: ResultBackend, worker: ResultBackend, redis_client: Any
) -> None:
    client.result_consumer.hear()
    handle, before = published(client, "j"), client.mark()[0]
    client.result_consumer._after_fork()
    assert client.mark()[0] != before
    store(worker, None, "j", 7)
    assert handle.get(timeout=20) == 7
    later = published(client, "k")
    store(worker, client, "k", 8)
    assert later.get(timeout=20) == 8


def test_whoever_ends_a_job_without_its_request_tells_its_publisher(
    client: ResultBackend, worker: ResultBackend, redis_client: Any
) -> None:
    client.result_consumer.hear()
    handle = published(client, "j")
    worker.ledger.enter("j", "", f'{{"properties": {{"reply_to": "{client.mark()[0]}"}}}}')
    with ThreadPoolExecutor(1) as pool:
        got = pool.submit(handle.get, timeout=20, propagate=False)
        worker.mark_as_failure("j", ValueError("it broke"))
        assert str(got.result()) == "it broke"


@pytest.mark.parametrize("reply_to", ["of Celery", None])
def test_nobody_is_told_twice(worker: ResultBackend, redis_client: Any, reply_to: str | None) -> None:
    worker.ledger.enter("j", "", '{"properties": {"reply_to": "of Celery"}}')
    with redis_client.pubsub() as listener:
        listener.psubscribe("*")
        wait_until(redis_client.pubsub_numpat, "it is subscribed to")
        request = Context({"id": "j", "task": "packetfs.test", "delivery_info": {}, "reply_to": reply_to})
        worker.mark_as_done("j", 7, request=request)
        heard = []
        while (told := listener.get_message(timeout=0.5)) is not None:
            heard += [told["channel"]] if told["type"] == "pmessage" else []
    assert heard == [(JOB_STATE + "j").encode()]


def test_the_channel_is_one_that_users_may_subscribe_to(client: ResultBackend) -> None:
    assert client.mark()[0].startswith(REPLIES)
    assert client.get_key_for_task(client.mark()[0]).startswith(JOB_STATE.encode())
