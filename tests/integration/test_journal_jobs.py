"""The journal of a real system: jobs that its workers ran are told of by the gateway's feed."""

from collections.abc import Iterator
from typing import Any

import pytest
from support.gateway import Client, serving
from support.nginx import Nginx
from support.processes import wait_until
from support.system import RunningSystem, publishing_to

from packetfs_compute.celery import app as celery_app
from packetfs_compute.desk import Desk
from packetfs_compute.errors import SourceNotFound
from packetfs_compute.gateway.app import create_app
from tasks import crc32c, program

pytestmark = pytest.mark.integration

SECRET = "X-Amz-Signature=5ec2e7"


@pytest.fixture(scope="module")
def client(system: RunningSystem) -> Iterator[Client]:
    settings = system.settings
    with (
        publishing_to(settings),
        serving(create_app(settings, Desk(settings), lambda: celery_app.backend)) as client,
    ):
        yield client


def told_of(client: Client, job_id: str) -> dict[str, Any] | None:
    return next((one for one in client.get("/v1/overview").json["recent"] if one["job_id"] == job_id), None)


def waited_for(client: Client, job_id: str) -> dict[str, Any]:
    wait_until(lambda: told_of(client, job_id), "the job is told of")
    job = told_of(client, job_id)
    assert job is not None
    return job


def local(client: Client) -> dict[str, Any]:
    return next(one for one in client.get("/v1/overview").json["substrates"] if one["name"] == "local")


def test_jobs_are_told_of_with_their_attempts_and_the_table_that_was_seen(client: Client, nginx: Nginx) -> None:
    (nginx.www / "journal.bin").write_bytes(bytes(4096))
    url = nginx.url("journal.bin")
    before = local(client)

    good = crc32c.delay(f"{url}?{SECRET}", 0, 4096)
    result = good.get(timeout=30)
    bad = program.delay(nginx.url(f"no-such-object?{SECRET}"), [{"op": "crc32c"}, {"op": "xor", "imm": 1}])
    with pytest.raises(SourceNotFound):
        bad.get(timeout=30)

    done, failed = waited_for(client, good.id), waited_for(client, bad.id)
    assert (done["status"], done["error"], done["op"], done["data_url"], done["length"]) == (
        "done", None, "crc32c", url, 4096,
    )  # fmt: skip
    assert (done["cost_usd"], done["substrate"]) == (result["cost_usd"], "local")
    assert [(one["substrate"], one["ok"]) for one in done["attempts"]] == [("local", True)]
    assert abs(done["total_s"] - result["timing"]["total_s"]) < 1e-3
    assert done["decision"]["substrate"] == "local"
    assert [row["substrate"] for row in done["decision"]["candidates"]] == ["local"]
    assert done["decision"]["at"] <= done["at"]

    assert (failed["status"], failed["op"], failed["length"]) == ("failed", "program", None)
    assert failed["error"]["type"] == "source_not_found"
    assert [one["error"]["type"] for one in failed["attempts"]] == ["source_not_found"]
    assert "5ec2e7" not in client.get("/v1/overview").text

    after = local(client)
    assert after["jobs"]["done"] >= before["jobs"]["done"] + 1
    assert after["jobs"]["failed"]["source_not_found"] == before["jobs"]["failed"].get("source_not_found", 0) + 1
    assert after["bytes"] >= before["bytes"] + 4096
    wait_until(lambda: local(client)["latency_s"]["p99"], "the step is over")
    series = client.get("/v1/overview").json["series"]
    assert sum(series["done"]["local"]) >= 1
    assert sum(series["failed"]["local"]) >= 1
