"""Signatures: what is signed is accepted once, and nothing else ever is."""

import hashlib
import hmac
import random
import string
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.untrusted import patient

from packetfs_compute import signature
from packetfs_compute.errors import Busy, ConfigurationError, JobError, Unauthorized
from packetfs_compute.signature import HEADER, WINDOW_S, Verifier, sign

NOW = 1_700_000_000.0
SECRET, OTHER = "s" * 32, "o" * 32
NONCE = "nonce-0123456789"
BODY = b'{"program": {}}'

WORDS = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=64)
NONCES = st.text(string.ascii_letters + string.digits + "_-", min_size=16, max_size=64)
TARGETS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)
SECRETS = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=","), min_size=16, max_size=60
)


def verifier(*keys: str, now: float = NOW, **more: Any) -> Verifier:
    return Verifier(keys or (f"k1:{SECRET}",), lambda: now, **more)


def signed(body: bytes = BODY, at: float = NOW, nonce: str = NONCE, key_id: str = "k1", secret: str = SECRET) -> str:
    return sign("POST", "/compute", body, key_id, secret, at, nonce)


def by_hand(method: str, path: str, body: bytes, key_id: str, secret: str, seconds: int, nonce: str) -> str:
    """The header as DESIGN, section 3 spells it, from the standard library alone."""
    text = f"v1\n{method}\n{path}\n{key_id}\n{seconds}\n{nonce}\n{hashlib.sha256(body).hexdigest()}"
    mac = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    return f"v1;{key_id};{seconds};{nonce};{mac}"


def refused(
    check: Verifier, header: str | None, body: bytes = BODY, method: str = "POST", path: str = "/compute"
) -> str:
    with pytest.raises(Unauthorized) as caught:
        check.verify(method, path, body, header)
    message = str(caught.value)
    assert message.startswith("the request's signature ")
    assert "\n" not in message
    assert SECRET not in message + str(caught.value.details)
    assert caught.value.hint
    return message


def test_a_vector() -> None:
    """Computed once with `openssl dgst -sha256 -hmac`; other languages are held to it as well."""
    header = sign("POST", "/compute", b"{}", "k1", "0123456789abcdef", 1_700_000_000.9, "abcdefghijklmnop")
    assert header == (
        "v1;k1;1700000000;abcdefghijklmnop;e1a3278d3c0ae0c04e761f642de4df0ed13319a27853a07857ebb45526f45dc5"
    )


@patient
@given(TARGETS, TARGETS, st.binary(max_size=200), WORDS, SECRETS, st.integers(0, 999_999_999_999), NONCES)
def test_it_is_what_the_design_says(
    method: str, path: str, body: bytes, key_id: str, secret: str, seconds: int, nonce: str
) -> None:
    header = sign(method, path, body, key_id, secret, seconds, nonce)
    assert header == by_hand(method, path, body, key_id, secret, seconds, nonce)
    assert Verifier([f"{key_id}:{secret}"], lambda: seconds).verify(method, path, body, header) == key_id


def test_the_headers_name() -> None:
    assert HEADER == "X-PacketFS-Signature"


@pytest.mark.parametrize("skew", [0, 1, -1, WINDOW_S, -WINDOW_S])
def test_within_the_window(skew: int) -> None:
    assert verifier(now=NOW + skew).verify("POST", "/compute", BODY, signed()) == "k1"


@pytest.mark.parametrize(
    ("skew", "when"), [(61, "past"), (-61, "future"), (1e9, "past"), (-1e9, "future"), (60.5, "past")]
)
def test_outside_the_window(skew: float, when: str) -> None:
    assert when in refused(verifier(now=NOW + skew), signed())


def test_a_replay_is_refused_for_as_long_as_it_would_be_accepted() -> None:
    now = NOW
    check = Verifier([f"k1:{SECRET}"], lambda: now)
    check.verify("POST", "/compute", BODY, signed())
    for now in (NOW, NOW - 60, NOW + 30, NOW + 60):  # noqa: B007  (the clock)
        assert "used before" in refused(check, signed())
    now = NOW + 61
    assert "past" in refused(check, signed())
    check.verify("POST", "/compute", BODY, signed(at=now))


def test_a_clock_that_is_set_back_opens_no_door() -> None:
    now = NOW
    check = Verifier([f"k1:{SECRET}"], lambda: now)
    check.verify("POST", "/compute", BODY, signed())
    now = NOW + 200
    check.verify("POST", "/compute", BODY, signed(at=now, nonce="another-nonce-000"))
    now = NOW
    assert "used before" in refused(check, signed())
    assert "used before" in refused(check, signed(nonce="never-seen-before"))


def test_the_same_nonce_of_another_key_or_time_is_new() -> None:
    check = verifier(f"k1:{SECRET}", f"k2:{OTHER}")
    for header in (signed(), signed(key_id="k2", secret=OTHER), signed(at=NOW + 1)):
        check.verify("POST", "/compute", BODY, header)


def test_two_keys_live_at_once_while_one_is_replaced() -> None:
    both, after = verifier(f"k1:{SECRET}", f"k2:{OTHER}"), verifier(f"k2:{OTHER}")
    old, new = signed(), signed(key_id="k2", secret=OTHER)
    assert (both.verify("POST", "/compute", BODY, old), both.verify("POST", "/compute", BODY, new)) == ("k1", "k2")
    assert after.verify("POST", "/compute", BODY, new) == "k2"
    assert refused(after, old) == refused(verifier(), signed(secret=OTHER))


def test_an_id_may_not_stand_for_two_keys() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Verifier([f"k1:{SECRET}", f"k1:{OTHER}"])
    assert SECRET not in str(caught.value) + str(caught.value.details)


def test_a_secret_may_hold_a_colon() -> None:
    secret = "with:colons:in:it"
    assert verifier(f"k1:{secret}").verify("POST", "/compute", BODY, signed(secret=secret)) == "k1"


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
     GOOD.replace(MAC, ""), GOOD.replace(MAC, "０" * 64), GOOD * 2, "v1;" * 100_000, f"{GOOD},{GOOD}"],
)  # fmt: skip
def test_what_has_not_the_form_is_refused_before_anything_is_computed(
    header: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = verifier()
    monkeypatch.setattr(hmac, "new", lambda *_: pytest.fail("it was computed"))
    refused(check, header)


@pytest.mark.parametrize(
    ("method", "path"), [("POST\n/compute", "k1"), ("POST", "/compute\nk1"), ("", "/"), ("P", "/é")]
)
def test_no_line_can_be_moved_from_one_field_to_another(method: str, path: str) -> None:
    with pytest.raises(ValueError, match="visible ASCII"):
        sign(method, path, BODY, "k1", SECRET, NOW, NONCE)
    refused(verifier(), signed(), method=method, path=path)


@pytest.mark.parametrize(
    ("key_id", "now", "nonce"),
    [("", NOW, NONCE), ("k;1", NOW, NONCE), ("k1", -1.0, NONCE), ("k1", 1e12, NONCE), ("k1", NOW, "short"),
     ("k1", NOW, NONCE + "\n"), ("k1", float("nan"), NONCE)],
)  # fmt: skip
def test_what_could_not_be_verified_is_not_signed(key_id: str, now: float, nonce: str) -> None:
    with pytest.raises(ValueError, match="key id"):
        sign("POST", "/compute", BODY, key_id, SECRET, now, nonce)


def test_an_unknown_key_and_a_wrong_mac_are_told_apart_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[bytes] = []
    real = hmac.new

    def counted(key: bytes, message: bytes, digest: str) -> Any:
        computed.append(message)
        return real(key, message, digest)

    unknown, wrong = signed(key_id="k9"), signed(secret=OTHER)
    monkeypatch.setattr(hmac, "new", counted)
    assert refused(verifier(), unknown) == refused(verifier(), wrong)
    assert len(computed) == 2


def test_nobodys_secret_signs_for_nobody() -> None:
    """What stands in for the secret of an unknown id is no secret: it is in the source."""
    refused(verifier(), signed(key_id="k9", secret=signature._NOBODYS))
    refused(verifier(), signed(key_id="k1", secret=signature._NOBODYS))


def test_ten_thousand_that_were_tampered_with_are_refused() -> None:
    rng = random.Random(7)
    check, accepted = verifier(), 0
    alphabet = string.ascii_letters + string.digits + ";_-/ \n\0é٣"
    for at in range(10_000):
        body, nonce = rng.randbytes(rng.randrange(1, 60)), f"nonce-{at:016}"
        header, method, path = signed(body, nonce=nonce), "POST", "/compute"
        where = rng.randrange(len(header))
        kind = at % 7
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
        try:
            check.verify(method, path, body, header)
            accepted += 1
        except Unauthorized:
            pass
    assert accepted == 0
    assert check.verify("POST", "/compute", BODY, signed()) == "k1"


def test_a_stranger_cannot_fill_the_store() -> None:
    check = verifier(max_nonces=3)
    for at in range(50):
        refused(check, signed(nonce=f"stranger-{at:016}", secret=OTHER))
        refused(check, signed(nonce=f"too-early-{at:016}", at=NOW + 61))
    for at in range(3):
        check.verify("POST", "/compute", BODY, signed(nonce=f"known-{at:016}"))


def test_a_full_store_refuses_rather_than_forgets() -> None:
    now = NOW
    check = Verifier([f"k1:{SECRET}"], lambda: now, max_nonces=3)
    first = [signed(nonce=f"known-{at:016}") for at in range(3)]
    for header in first:
        check.verify("POST", "/compute", BODY, header)
    with pytest.raises(Busy) as caught:
        check.verify("POST", "/compute", BODY, signed(nonce="one-too-many-0000"))
    assert caught.value.details["retry_after_s"] > 0
    for header in first:
        assert "used before" in refused(check, header)
    now = NOW + 61
    check.verify("POST", "/compute", BODY, signed(nonce="one-too-many-0000", at=now))
    assert check._seen._count == 1


def test_what_may_be_forgotten_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = NOW
    check = Verifier([f"k1:{SECRET}"], lambda: now)
    for at in range(1000):
        now = NOW + at
        check.verify("POST", "/compute", BODY, signed(nonce=f"nonce-{at:016}", at=now + at % 60))
    assert check._seen._count < 200
    assert sum(map(len, check._seen._until.values())) == check._seen._count


def test_of_many_threads_with_one_signature_one_is_accepted() -> None:
    check, start = verifier(), threading.Barrier(16)

    def attempt(_: int) -> bool:
        start.wait()
        try:
            check.verify("POST", "/compute", BODY, signed())
        except Unauthorized:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(attempt, range(16))) == 1


@patient
@given(
    st.text() | st.from_regex(r"v1;[a-z0-9]*;[0-9]*;[a-z0-9]*;[0-9a-f]*"), st.binary(max_size=20), st.text(), st.text()
)
def test_any_text_is_refused_by_type(header: str, body: bytes, method: str, path: str) -> None:
    with pytest.raises(JobError) as caught:
        verifier().verify(method, path, body, header)
    assert type(caught.value) is Unauthorized


def test_a_verifier_shows_no_secret() -> None:
    assert SECRET not in repr(verifier()) + str(verifier())
