import json
from base64 import urlsafe_b64encode

import pytest

from packetfs_compute.errors import Unauthorized
from packetfs_compute.volunteers import StubReputations
from packetfs_compute.volunteers.frames import parse_frame
from packetfs_compute.volunteers.tickets import TICKET_S, Tickets

NOW = 1_700_000_000.0
SECRET = b"0123456789abcdef"


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tickets(clock: Clock) -> Tickets:
    return Tickets(SECRET, StubReputations().spend, clock)


def test_a_ticket_leads_to_its_account_once(tickets: Tickets) -> None:
    ticket = tickets.issue("alice", "192.0.2.0/24")
    assert tickets.redeem(ticket, "192.0.2.0/24") == "alice"
    with pytest.raises(Unauthorized, match="used before"):
        tickets.redeem(ticket, "192.0.2.0/24")


def test_each_is_another(tickets: Tickets) -> None:
    assert tickets.issue("alice", "n") != tickets.issue("alice", "n")


def test_it_fits_into_a_frame(tickets: Tickets) -> None:
    ticket = tickets.issue("a" * 64, "2001:db8:ffff:ff00::/56")
    parse_frame(json.dumps({"type": "hello", "version": 1, "ticket": ticket, "kernel": "portable", "slots": 1}))


def test_it_is_good_for_a_minute(tickets: Tickets, clock: Clock) -> None:
    early, late = tickets.issue("alice", "n"), tickets.issue("alice", "n")
    clock.now += TICKET_S - 1
    assert tickets.redeem(early, "n") == "alice"
    clock.now += 1
    with pytest.raises(Unauthorized, match="expired"):
        tickets.redeem(late, "n")


def test_it_is_good_in_one_network_and_not_used_up_in_another(tickets: Tickets) -> None:
    ticket = tickets.issue("alice", "n")
    with pytest.raises(Unauthorized, match="another network"):
        tickets.redeem(ticket, "m")
    assert tickets.redeem(ticket, "n") == "alice"


def test_who_has_not_the_secret_makes_none(tickets: Tickets) -> None:
    ticket = tickets.issue("alice", "n")
    body, _, mac = ticket.rpartition(".")
    forged = "v1." + urlsafe_b64encode(json.dumps(["root", "n", 9e9, "x"]).encode()).rstrip(b"=").decode()
    for other in ("", "v1", ticket + "0", f"{body}.{'0' * 64}", f"{forged}.{mac}", ticket.upper(), ticket + "\n",
                  Tickets(b"fedcba9876543210", lambda *_: True).issue("alice", "n")):  # fmt: skip
        with pytest.raises(Unauthorized, match="not one of ours"):
            tickets.redeem(other, "n")
    assert tickets.redeem(ticket, "n") == "alice"


@pytest.mark.parametrize("name", ["", "a" * 65, "a b", "a\n", "é", "a/b"])
def test_an_account_has_a_plain_name(tickets: Tickets, name: str) -> None:
    with pytest.raises(ValueError, match="account"):
        tickets.issue(name, "n")


def test_a_short_secret_is_none() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Tickets(b"short", lambda *_: True)
