"""The dashboard's files over HTTP: to anyone, and no others."""

import configparser
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.gateway import Client, serving

from packetfs_compute.celery import app as celery_app
from packetfs_compute.desk import Desk
from packetfs_compute.gateway.app import create_app
from packetfs_compute.gateway.pages import FILES
from packetfs_compute.settings import load_settings

pytestmark = pytest.mark.integration

TYPES = {
    "/": "text/html; charset=utf-8",
    "/dashboard/dashboard.js": "text/javascript; charset=utf-8",
    "/dashboard/dashboard.css": "text/css; charset=utf-8",
    "/dashboard/icon.svg": "image/svg+xml",
    "/dashboard/uplot.LICENSE.txt": "text/plain; charset=utf-8",
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Of a gateway that has no Redis, and so can let nobody in: what it serves nonetheless needs no key."""
    settings = load_settings({"PACKETFS_DATA_DIR": str(tmp_path_factory.mktemp("data"))}, None)
    with serving(create_app(settings, Desk(settings), lambda: celery_app.backend)) as client:
        yield client


def test_each_is_served_to_anyone_as_what_it_is(client: Client) -> None:
    assert {path.rpartition("/")[2] for path in TYPES} == {"", *FILES}
    for path, kind in TYPES.items():
        answer = client.get(path)
        assert (answer.status, answer.headers["Content-Type"], answer.headers["Cache-Control"]) == (
            200,
            kind,
            "no-cache",
        )
        assert "script-src 'self';" in answer.headers["Content-Security-Policy"]


def test_what_has_not_changed_is_not_sent_again(client: Client) -> None:
    etags = {path: client.get(path).headers["ETag"] for path in TYPES}
    assert len(set(etags.values())) == len(TYPES)
    for path, etag in etags.items():
        for listed in (etag, f'"other", W/{etag}', "*"):
            answer = client.get(path, If_None_Match=listed)
            assert (answer.status, answer.text, answer.headers["ETag"]) == (304, "", etag)
        assert client.get(path, If_None_Match='"other"').status == 200


@pytest.mark.parametrize(
    "name", ["index.html", "none.js", "..%2Fdocs.css", "%2e%2e/docs.css", "dashboard.js/", "dashboard.js%00", ""]
)
def test_nothing_else_is(client: Client, name: str) -> None:
    assert client.get(f"/dashboard/{name}").error == "not_found"


def test_they_are_installed_with_the_package() -> None:
    config = configparser.ConfigParser()
    config.read(Path(__file__).parents[3] / "setup.cfg", "utf-8")
    assert "static/dashboard/*" in config["options.package_data"]["packetfs_compute.gateway"].split(", ")
