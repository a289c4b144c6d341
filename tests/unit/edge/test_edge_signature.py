"""Signatures made in Python and verified by WebCrypto: what is signed is accepted once, and nothing else ever is."""

import random
import string
from typing import Any

import pytest
from support.edge import Edge, encoded

from packetfs_compute.signature import WINDOW_S, sign

pytestmark = pytest.mark.integration

NOW = 1_700_000_000
SECRET, OTHER = "s" * 32, "o" * 32
KEYS = [{"id": "k1", "secret": SECRET}, {"id": "k2", "secret": OTHER}]
NONCE = "nonce-0123456789"
BODY = b'{"program": {}}'


def verify(
    edge: Edge, header: str | None, body: bytes = BODY, method: str = "POST", path: str = "/compute", now: float = NOW
) -> str:
    """Return the key's id, or the type of the error."""
    outcome = edge.calls([("verify", method, path, encoded(body), header, now)])[0]
    if outcome.error is not None:
        assert SECRET not in str(outcome.error)
        return outcome.error.type
    return str(outcome.value)


def signed(body: bytes = BODY, at: float = NOW, nonce: str = NONCE, key_id: str = "k1", secret: str = SECRET) -> str:
    return sign("POST", "/compute", body, key_id, secret, at, nonce)


@pytest.fixture(autouse=True)
def verifier(edge: Edge) -> None:
    edge.call("verifier", KEYS, 200_000, NOW)


def test_two_thousand_are_accepted(edge: Edge) -> None:
    rng = random.Random(5)
    letters = string.ascii_letters + string.digits + "_-"
    visible = "".join(map(chr, range(0x21, 0x7F))).replace(",", "")
    keys = [{"id": f"key-{at}", "secret": "".join(rng.choices(visible, k=rng.randrange(16, 257)))} for at in range(20)]
    edge.call("verifier", keys, 200_000, NOW)
    calls: list[tuple[Any, ...]] = []
    now, ids = rng.randrange(10**11), []
    for at in range(2000):
        now += rng.randrange(4)
        key, body, signed_at = rng.choice(keys), rng.randbytes(rng.randrange(2000)), now + rng.randrange(-60, 61)
        method, path = rng.choice(["POST", "GET"]), "/" + "".join(rng.choices(visible, k=rng.randrange(80)))
        nonce = f"{at:06}" + "".join(rng.choices(letters, k=rng.randrange(10, 59)))
        header = sign(method, path, body, key["id"], key["secret"], signed_at, nonce)
        calls.append(("verify", method, path, encoded(body), header, now))
        ids.append(key["id"])
    assert [outcome.value for outcome in edge.calls(calls)] == ids


def test_ten_thousand_that_were_tampered_with_are_refused(edge: Edge) -> None:
    rng = random.Random(7)
    alphabet = string.ascii_letters + string.digits + ";_-/ \n\0é٣"
    calls: list[tuple[Any, ...]] = []
    for at in range(10_000):
        body, nonce = rng.randbytes(rng.randrange(1, 60)), f"nonce-{at:016}"
        header, method, path = signed(body, nonce=nonce), "POST", "/compute"
        where, kind = rng.randrange(len(header)), at % 7
        if kind == 0:
            header = header[:where] + rng.choice(alphabet.replace(header[where], "")) + header[where + 1 :]
        elif kind == 1:
            header = header[:where] + header[where + 1 :]
        elif kind == 2:
            header = header[:where] + rng.choice(alphabet) + header[where:]
        elif kind == 3:
            spot = rng.randrange(len(body))
            body = body[:spot] + bytes([body[spot] ^ 1 << rng.randrange(8)]) + body[spot + 1 :]
        elif kind == 4:
            body = rng.choice([body[:-1], body + b"\0", b"" if body else b"x"])
        elif kind == 5:
            method, path = rng.choice([("GET", path), ("post", path), (method, "/compute/batch"), (method, "/Compute")])
        else:
            header = header[:-64] + rng.randbytes(32).hex()
        calls.append(("verify", method, path, encoded(body), header, NOW))
    types = [outcome.error and outcome.error.type for outcome in edge.calls(calls)]
    assert types == ["unauthorized"] * 10_000
    assert verify(edge, signed()) == "k1"


def test_a_vector(edge: Edge) -> None:
    """The one of ``tests/unit/test_signature.py``, computed with `openssl dgst`."""
    edge.call("verifier", [{"id": "k1", "secret": "0123456789abcdef"}], 10, NOW)
    header = "v1;k1;1700000000;abcdefghijklmnop;e1a3278d3c0ae0c04e761f642de4df0ed13319a27853a07857ebb45526f45dc5"
    assert verify(edge, header, b"{}") == "k1"


GOOD = signed()
VERSION, KEY_ID, SECONDS, _, MAC = GOOD.split(";")


@pytest.mark.parametrize(
    "header",
    [None, "", ";", ";;;;", "v1", GOOD[:-1], GOOD + "0", GOOD + ";", GOOD + "\n", " " + GOOD, GOOD + " ", GOOD.upper(),
     GOOD.replace("v1", "v2"), GOOD.replace("v1;", ""), GOOD.replace("k1", ""), GOOD.replace("k1", "k" * 65),
     GOOD.replace("k1", "k 1"), GOOD.replace("k1", "ké"), GOOD.replace(SECONDS, "١٧٠٠٠٠٠٠٠٠"), GOOD.replace(SECONDS, ""),
     GOOD.replace(SECONDS, "-" + SECONDS), GOOD.replace(SECONDS, "+" + SECONDS), GOOD.replace(SECONDS, SECONDS + ".0"),
     GOOD.replace(SECONDS, "1" * 13), GOOD.replace(SECONDS, " " + SECONDS), GOOD.replace(SECONDS, "1_700_000_000"),
     GOOD.replace(NONCE, NONCE[:15]), GOOD.replace(NONCE, "n" * 65), GOOD.replace(NONCE, "nonce;0123456789"),
     GOOD.replace(NONCE, "nonce/0123456789"), GOOD.replace(MAC, MAC.upper()), GOOD.replace(MAC, MAC[:-1] + "g"),
     GOOD.replace(MAC, ""), GOOD.replace(MAC, "０" * 64), GOOD * 2, "v1;" * 1000, f"{GOOD}, {GOOD}"],
)  # fmt: skip
def test_what_has_not_the_form_is_refused(edge: Edge, header: str | None) -> None:
    assert verify(edge, header) == "unauthorized"


@pytest.mark.parametrize(
    ("method", "path"), [("POST\n/compute", "k1"), ("POST", "/compute\nk1"), ("", "/"), ("P", "/é")]
)
def test_no_line_can_be_moved_from_one_field_to_another(edge: Edge, method: str, path: str) -> None:
    assert verify(edge, signed(), method=method, path=path) == "unauthorized"


@pytest.mark.parametrize("skew", [0, 1, -1, WINDOW_S, -WINDOW_S, 61, -61, 60.5, 10**9, -(10**9)])
def test_the_window(edge: Edge, skew: float) -> None:
    assert verify(edge, signed(), now=NOW + skew) == ("k1" if abs(skew) <= WINDOW_S else "unauthorized")


def test_keys_are_told_apart(edge: Edge) -> None:
    assert verify(edge, signed(key_id="k2", secret=OTHER)) == "k2"
    assert verify(edge, signed(key_id="k2")) == "unauthorized"
    assert verify(edge, signed(key_id="k9", secret="no key has this id")) == "unauthorized"
    assert verify(edge, signed(key_id="k1", secret="no key has this id")) == "unauthorized"
    wrong, unknown = signed(secret=OTHER), signed(key_id="k9")
    outcomes = edge.calls([("verify", "POST", "/compute", encoded(BODY), header, NOW) for header in (wrong, unknown)])
    assert outcomes[0].error == outcomes[1].error


def test_a_replay_is_refused_for_as_long_as_it_would_be_accepted(edge: Edge) -> None:
    assert verify(edge, signed()) == "k1"
    for now in (NOW, NOW - 60, NOW + 30, NOW + 60):
        assert verify(edge, signed(), now=now) == "unauthorized"
    assert verify(edge, signed(key_id="k2", secret=OTHER)) == "k2"
    assert verify(edge, signed(at=NOW + 1)) == "k1"


def test_a_clock_that_is_set_back_opens_no_door(edge: Edge) -> None:
    assert verify(edge, signed()) == "k1"
    assert verify(edge, signed(at=NOW + 200, nonce="another-nonce-000"), now=NOW + 200) == "k1"
    assert verify(edge, signed(), now=NOW) == "unauthorized"
    assert verify(edge, signed(nonce="never-seen-before"), now=NOW) == "unauthorized"


def test_a_full_store_refuses_rather_than_forgets_and_strangers_cannot_fill_it(edge: Edge) -> None:
    edge.call("verifier", KEYS, 3, NOW)
    for at in range(20):
        assert verify(edge, signed(nonce=f"stranger-{at:016}", secret=OTHER)) == "unauthorized"
        assert verify(edge, signed(nonce=f"too-early-{at:016}", at=NOW + 61)) == "unauthorized"
    first = [signed(nonce=f"known-{at:016}") for at in range(3)]
    assert [verify(edge, header) for header in first] == ["k1"] * 3
    full = edge.calls([("verify", "POST", "/compute", encoded(BODY), signed(nonce="one-too-many-0000"), NOW)])[0].error
    assert full is not None
    assert (full.type, full.details["retry_after_s"]) == ("busy", 1)
    assert [verify(edge, header) for header in first] == ["unauthorized"] * 3
    assert verify(edge, signed(nonce="one-too-many-0000", at=NOW + 61), now=NOW + 61) == "k1"
