"""News of jobs: a wait ends when one that is waited for is stored, and lasts as long as it may where nothing is."""

import threading
import time
from typing import Any

from packetfs_compute.broker.news import news_of
from packetfs_compute.names import JOB_STATE

LONG_S = 20.0


def publish(client: Any, job_id: str, count: int = 1) -> None:
    for _ in range(count):
        client.publish(JOB_STATE + job_id, "{}")


def waited_s(news: Any, seconds: float) -> float:
    started_s = time.monotonic()
    news.wait(seconds)
    return time.monotonic() - started_s


def test_a_wait_ends_with_news(redis_client: Any) -> None:
    with news_of(redis_client, "scan.*") as news:
        timer = threading.Timer(0.2, publish, (redis_client, "scan.7"))
        timer.start()
        assert waited_s(news, LONG_S) < LONG_S / 2
        timer.join()


def test_news_before_the_wait_counts_once_however_much_it_was(redis_client: Any) -> None:
    with news_of(redis_client, "scan.*") as news:
        publish(redis_client, "scan.7", 100)
        assert waited_s(news, LONG_S) < LONG_S / 2
        assert waited_s(news, 0.3) >= 0.3


def test_news_of_others_ends_no_wait(redis_client: Any) -> None:
    with news_of(redis_client, "scan.*") as news:
        publish(redis_client, "other.7")
        assert waited_s(news, 0.3) >= 0.3


def test_where_there_is_no_redis_a_wait_is_a_wait(redis_client: Any) -> None:
    class Away:
        def pubsub(self, **_: Any) -> Any:
            subscription = redis_client.pubsub(ignore_subscribe_messages=True)

            def refuse(*_: Any) -> None:
                raise ConnectionRefusedError

            subscription.psubscribe = refuse
            return subscription

    with news_of(Away(), "scan.*") as news:
        assert waited_s(news, 0.3) >= 0.3
