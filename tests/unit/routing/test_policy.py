"""Policies: what parses, what is refused, and which places each one does not want."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.untrusted import HUGE, json_values, patient

from packetfs_compute.errors import BadPolicy
from packetfs_compute.routing import Capabilities, Policy, parse_policy
from packetfs_compute.routing.policy import unwanted

FIELDS = tuple(Policy.__dataclass_fields__)
NAMES = ["local", "lambda", "x" * 64]


@pytest.mark.parametrize(
    ("raw", "policy"),
    [
        (None, Policy()),
        ({}, Policy()),
        (dict.fromkeys(FIELDS), Policy()),
        ({"goal": "cheapest"}, Policy(goal="cheapest")),
        ({"trust": "own"}, Policy(trust="own")),
        ({"max_cost_usd": 1e-5}, Policy(max_cost_usd=1e-5)),
        ({"max_cost_usd": 0}, Policy(max_cost_usd=0.0)),
        ({"value_of_time_usd_per_hour": 1e6}, Policy(value_of_time_usd_per_hour=1e6)),
        ({"deadline_s": 0.001}, Policy(deadline_s=0.001)),
        ({"deadline_s": 3600}, Policy(deadline_s=3600.0)),
        ({"substrates": NAMES}, Policy(substrates=tuple(NAMES))),
        ({"substrates": []}, Policy(substrates=())),
        ({"exclude": ("local",)}, Policy(exclude=("local",))),
        ({"exclude": ["x"] * 64}, Policy(exclude=("x",) * 64)),
        ({"min_memory_mb": 512.0}, Policy(min_memory_mb=512)),
        ({"cache": False}, Policy(cache=False)),
        ({"cache": True}, Policy()),
        ({"append_only": True, "cache": True}, Policy(append_only=True)),
        ({"append_only": False, "cache": False}, Policy(cache=False)),
    ],
)
def test_what_parses(raw: object, policy: Policy) -> None:
    assert parse_policy(raw) == policy
    assert isinstance(parse_policy(raw).min_memory_mb, int)


huge = pytest.param({"max_cost_usd": HUGE}, "max_cost_usd", id="huge")
minus_huge = pytest.param({"deadline_s": -HUGE}, "deadline_s", id="-huge")


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        *[({name: value}, name) for name in ("goal", "trust") for value in ("", "best", "Own", 1, True, ["own"], {})],
        *[({name: value}, name) for name in ("max_cost_usd", "value_of_time_usd_per_hour", "deadline_s") for value in
          (-1, -1e-9, math.nan, math.inf, -math.inf, True, "1", [1], {}, 1e7, 10**400)],
        ({"deadline_s": 0}, "deadline_s"),
        ({"deadline_s": 3600.1}, "deadline_s"),
        *[({name: value}, name) for name in ("substrates", "exclude") for value in
          ("local", [1], [None], ["local", ["x"]], {"local": 1}, True, 7, ["x"] * 65, ["x" * 65])],
        *[({"min_memory_mb": value}, "min_memory_mb") for value in (-1, 1.5, "512", True, math.nan, 1 << 21)],
        *[({"cache": value}, "cache") for value in (0, 1, "false", [], 0.0)],
        *[({"append_only": value}, "append_only") for value in (0, 1, "true", [], {})],
        ({"append_only": True, "cache": False}, "append_only"),
        ({"substrate": ["local"]}, "substrate"),
        ({"max_cost": 1}, "max_cost"),
        huge,
        minus_huge,
    ],
)  # fmt: skip
def test_what_is_refused_names_the_field_and_the_fix(raw: dict[str, Any], field: str) -> None:
    with pytest.raises(BadPolicy) as caught:
        parse_policy(raw)
    assert caught.value.details["field"] == f"policy.{field}"
    assert str(caught.value).startswith(f"policy.{field} ")
    assert caught.value.hint
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("raw", [[], "cheapest", 7, True, 0, False, "", [("goal", "cheapest")]])
def test_a_policy_is_an_object(raw: object) -> None:
    with pytest.raises(BadPolicy) as caught:
        parse_policy(raw)
    assert caught.value.details["field"] == "policy"


def outcome(raw: object) -> Policy | BadPolicy:
    try:
        return parse_policy(raw)
    except BadPolicy as error:
        return error


@patient
@given(json_values | st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_any_json_parses_or_is_a_bad_policy(raw: object) -> None:
    found = outcome(raw)
    if isinstance(found, Policy):
        assert hash(found) == hash(replace(found))
    else:
        assert found.details["field"].startswith("policy")
        assert found.hint
        assert len(str(found)) < 200


PLACE = Capabilities(
    name="lambda",
    trust="verified",
    memory_mb=1024,
    max_range_bytes=1000,
    max_duration_s=900,
    schemes=frozenset({"https"}),
)


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (Policy(), None),
        (Policy(substrates=("local", "lambda")), None),
        (Policy(substrates=("local", "fly")), "not among policy.substrates (local, fly)"),
        (Policy(substrates=()), "not among policy.substrates ()"),
        (Policy(exclude=("local",)), None),
        (Policy(exclude=("lambda",)), "in policy.exclude"),
        (Policy(trust="any"), None),
        (Policy(trust="verified"), None),
        (Policy(trust="own"), "its trust is verified, policy.trust wants own"),
        (Policy(min_memory_mb=1024), None),
        (Policy(min_memory_mb=1025), "has 1024 MB, policy.min_memory_mb wants 1025"),
        (Policy(goal="fastest", max_cost_usd=0.0, deadline_s=0.001), None),
        (Policy(substrates=("lambda",), exclude=("lambda",)), "in policy.exclude"),
        (Policy(substrates=("fly",), exclude=("lambda",), trust="own"), "not among policy.substrates (fly)"),
    ],
)
def test_which_place_a_policy_does_not_want(policy: Policy, reason: str | None) -> None:
    assert unwanted(policy, PLACE) == reason


@pytest.mark.parametrize(
    ("has", "wants", "enough"),
    [("any", "any", True), ("any", "verified", False), ("any", "own", False), ("verified", "any", True),
     ("verified", "verified", True), ("verified", "own", False), ("own", "any", True), ("own", "verified", True),
     ("own", "own", True)],
)  # fmt: skip
def test_more_trust_than_is_wanted_is_fine(has: Any, wants: Any, enough: bool) -> None:
    assert (unwanted(Policy(trust=wants), replace(PLACE, trust=has)) is None) is enough
