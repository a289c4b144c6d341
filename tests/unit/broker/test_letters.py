"""What the ledger reads in a message, and the message that it publishes again."""

import contextlib
import json
from typing import Any

import pytest
from support.malformed import GOOD_ID, MALFORMED, good

from packetfs_compute.broker.letters import (
    PUBLISHED,
    decoded,
    ledger_id,
    published_at,
    read_body,
    read_letter,
    republication,
)


@pytest.mark.parametrize(
    ("raw", "stamp"),
    [
        (b'{"packetfs_published": 7.5}', 7.5), (b'{"packetfs_published": 7}', 7.0), (b'{"packetfs_published": "7"}', None),
        (b'{"packetfs_published": true}', None), (b'{"packetfs_published": NaN}', None),
        (b"{}", None), (b"[]", None), (b"\xff", None),
    ],
)  # fmt: skip
def test_a_stamp_is_a_number_or_none(raw: bytes, stamp: float | None) -> None:
    assert published_at(raw) == stamp


def test_a_republication_is_the_same_job_under_a_new_tag() -> None:
    message = {**good(), PUBLISHED: 7.0}
    again = json.loads(republication(message, 3.0))
    assert again["headers"] == {**message["headers"], "redelivered": True}
    assert again["body"] == message["body"]
    assert again["properties"]["delivery_tag"] != message["properties"]["delivery_tag"]
    assert again["properties"]["delivery_info"]["redelivered"] is True
    assert PUBLISHED not in again
    letter = read_letter({**again, PUBLISHED: 9.0})
    assert (letter.id, letter.entered, letter.published) == (GOOD_ID, 3.0, 9.0)
    assert message == {**good(), PUBLISHED: 7.0}


def test_a_letter_tells_what_the_ledger_wants_to_know() -> None:
    letter = read_letter({**good(eta="1970-01-01T00:01:00+00:00"), PUBLISHED: 7.5})
    assert (letter.task, letter.queue, letter.eta, letter.published, letter.entered) == (
        "packetfs.crc32c", "packetfs.local", 60.0, 7.5, 7.5,
    )  # fmt: skip


@pytest.mark.parametrize(
    "envelope", [{}, {"headers": {}}, {"headers": {"id": 1}, "properties": None}, {"headers": None}]
)
def test_what_is_no_message_is_no_letter(envelope: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no message"):
        read_letter(envelope)


@pytest.mark.parametrize("name", [name for name in MALFORMED if "body" in name and "encoding" not in name])
def test_a_body_that_cannot_be_read_is_a_value_error_or_harmless(name: str) -> None:
    envelope = decoded(MALFORMED[name])
    if envelope is not None:
        with contextlib.suppress(ValueError):
            read_body(envelope)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"task": "packetfs.crc32c", "id": "a"}, "a"),
        ({"task": "packetfs.crc32c", "id": "a", "packetfs_ledger": True}, "a"),
        ({"task": "packetfs.crc32c", "id": "a", "packetfs_ledger": False}, None),
        ({"task": "others.task", "id": "a"}, None),
        ({"task": "packetfs.crc32c"}, None),
        ({"hostname": "h"}, None),
        ({}, None),
    ],
)
def test_only_this_projects_jobs_are_entered(headers: dict[str, Any], expected: str | None) -> None:
    assert ledger_id(headers) == expected
