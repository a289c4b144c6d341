"""What settings say of substrates, prices, egress and keys: every form that is taken, and every wrong one named."""

import datetime
import json
import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.untrusted import HUGE, json_values, patient

from packetfs_compute.places import (
    EgressRule,
    EndpointKey,
    Prices,
    SubstrateSpec,
    endpoint_key,
    parse_egress,
    parse_substrates,
    to_json,
)

FLY = {
    "kind": "fly",
    "url": "https://packetfs-compute.fly.dev",
    "function": "packetfs-compute:live",
    "region": "iad",
    "provider": "fly",
    "trust": "verified",
    "slots": 40,
    "memory_mb": 256,
    "max_range_bytes": 1 << 40,
    "max_duration_s": 900,
    "overhead_s": 0.05,
    "bytes_per_s": 2e8,
    "prices": {"usd_per_s": 7.8e-7},
    "script": {"answers": ["ok"]},
}
FLY_SPEC = SubstrateSpec(
    "fly-iad", "fly", "https://packetfs-compute.fly.dev", "packetfs-compute:live", "iad", "fly",
    "verified", 40, 256, 1 << 40, 900.0, 0.05, 2e8, Prices(usd_per_s=7.8e-7), '{"answers": ["ok"]}',
)  # fmt: skip
RULE = {"host": "*.assets.example.com", "usd_per_gb": 0.05, "provider": "aws", "region": "us-east-1"}
DEEP = pytest.param("[" * 100_000, id="deep")
SECRET = "0123456789abcdef"


def test_every_field_of_a_substrate_is_read() -> None:
    assert set(FLY) == {field.name for field in fields(SubstrateSpec)} - {"name"}
    assert parse_substrates({"fly-iad": FLY}) == (FLY_SPEC,)
    assert parse_substrates(json.dumps({"fly-iad": FLY})) == (FLY_SPEC,)


def test_what_is_left_out_is_for_its_kind_to_declare() -> None:
    assert parse_substrates({"fly": {}}) == (SubstrateSpec("fly", "fly"),)
    assert parse_substrates({"a": dict.fromkeys(FLY)}) == (SubstrateSpec("a", "a"),)
    assert parse_substrates({"a": {"kind": "fly"}, "b": {"kind": "fly"}}) == (
        SubstrateSpec("a", "fly"),
        SubstrateSpec("b", "fly"),
    )
    assert parse_substrates({}) == parse_substrates("{}") == ()


@pytest.mark.parametrize("name", ["a", "0", "a-b", "x" * 32, "a--9"])
def test_a_name_of_a_substrate(name: str) -> None:
    assert parse_substrates({name: {}})[0].name == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a.b", "x" * 33, "é", "a b", "a\n"])
def test_a_name_that_is_none_is_told(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 32 of a-z 0-9 -") as caught:
        parse_substrates({name: {}})
    assert repr(name)[:20] in str(caught.value)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("kind", ["", "Fly", 1, [], True]),
        ("url", ["", "host", "ftp://host", "https://", "https:///path", "http://:80", "https://host:x", "https://host:0",
                 "https://[::1", 5]),
        ("function", ["", 1, "a b", "x" * 65, "a:", "a:b:c", "a/b", "arn:aws:lambda:x:1:function:a", "a\n"]),
        ("region", ["", " ", 1, []]),
        ("provider", ["", 1]),
        ("trust", ["", "Own", "none", 1, True, ["own"], {}]),
        ("slots", [0, -1, 100_001, 1.0, "x", True, []]),
        ("memory_mb", [0, 1 << 25, 1.5, "1GB"]),
        ("max_range_bytes", [0, (1 << 45) + 1, 1e9, HUGE]),
        ("max_duration_s", [0, 3600.1, "x", math.nan, True]),
        ("overhead_s", [-0.1, 3601, math.inf, []]),
        ("bytes_per_s", [0, 0.5, 1e16, math.nan]),
        ("prices", [1, "free", [], {"usd_per_hour": 1}, {"usd_per_s": -1}, {"usd_per_s": "x"}, {"step_s": math.nan}]),
        ("script", [1, [], True, "[]", "{", "null", {"at": datetime.date(2026, 1, 1)}, {"x": "y" * 4096}]),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_what_would_be_right(field: str, wrong: list[object]) -> None:
    for value in wrong:
        with pytest.raises(ValueError) as caught:
            parse_substrates({"fly-iad": {**FLY, field: value}})
        assert str(caught.value).startswith(f"substrates.fly-iad.{field} is ")
        assert "give " in str(caught.value) or "name it" in str(caught.value) or "has no field" in str(caught.value)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "function",
    ["f", "packetfs-compute", "f:live", "f:7", "f:$LATEST", "arn:aws:lambda:us-east-1:123456789012:function:f",
     "arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:f:live"],
)  # fmt: skip
def test_a_function_of_lambda(function: str) -> None:
    assert parse_substrates({"aws": {"kind": "lambda", "function": function}})[0].function == function


def test_an_unknown_field_is_named_and_the_known_ones_told() -> None:
    with pytest.raises(ValueError, match=r"substrates\.fly has no field 'slot'; known are kind, url, ") as caught:
        parse_substrates({"fly": {"slot": 1}})
    assert all(name in str(caught.value) for name in FLY)


@pytest.mark.parametrize("raw", [None, 1, [], True, "[]", "null", "7", "", "{", "not json", DEEP])
def test_substrates_are_a_table(raw: object) -> None:
    with pytest.raises(ValueError, match="give "):
        parse_substrates(raw)


@pytest.mark.parametrize("table", [None, 1, [], "fly", True])
def test_and_so_is_each_of_them(table: object) -> None:
    with pytest.raises(ValueError, match=r"substrates\.fly: give a table"):
        parse_substrates({"fly": table})


def test_there_may_be_a_thousand_and_twenty_four() -> None:
    assert len(parse_substrates({f"s{n}": {} for n in range(1024)})) == 1024
    with pytest.raises(ValueError, match="at most 1024"):
        parse_substrates({f"s{n}": {} for n in range(1025)})


@pytest.mark.parametrize(
    "url",
    ["https://user:hunter2@host", "https://hunter2@host", "ftp://user:hunter2@host", "https://:hunter2@host",
     "https://user:hunter2@", "https://u:hunter2@[::1"],
)  # fmt: skip
def test_a_url_with_a_password_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_substrates({"fly": {"url": url}})
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).startswith("substrates.fly.url is a URL with credentials: ")


class TestEgress:
    def test_every_field_is_read(self) -> None:
        rule = EgressRule("*.assets.example.com", 0.05, "aws", "us-east-1")
        assert parse_egress([RULE]) == parse_egress(json.dumps([RULE])) == (rule,)
        assert parse_egress([{"host": "host", "usd_per_gb": 0}]) == (EgressRule("host", 0.0),)
        assert parse_egress([]) == parse_egress("[]") == ()

    def test_rules_keep_their_order(self) -> None:
        rules = parse_egress([{"host": host, "usd_per_gb": 1} for host in ("b", "a", "*.a")])
        assert [rule.host for rule in rules] == ["b", "a", "*.a"]

    @pytest.mark.parametrize(
        "host",
        ["example.com", "*.example.com", "1.2.3.4", "a", "s3://bucket", "s3://my.bucket", "s3://logs-*", "s3://*"],
    )
    def test_a_host(self, host: str) -> None:
        assert parse_egress([{**RULE, "host": host}])[0].host == host

    @pytest.mark.parametrize(
        "host",
        ["", "*", "*.", "*example.com", "a.*.com", "Example.com", "https://example.com", "example.com/", "a:80", ".a", "a.",
         "s3://", "s3://Bucket", "s3://bucket/key", "S3://bucket", "é.com", 1, None, ["a"]],
    )  # fmt: skip
    def test_what_is_no_host(self, host: object) -> None:
        with pytest.raises(ValueError, match=r"^egress\[0\]"):
            parse_egress([{**RULE, "host": host}])

    @pytest.mark.parametrize("usd", [-0.01, 1001, "x", True, math.nan, [], pytest.param(HUGE, id="huge")])
    def test_what_is_no_price(self, usd: object) -> None:
        with pytest.raises(ValueError, match=r"^egress\[1\]\.usd_per_gb is .*give a number from 0 to 1000"):
            parse_egress([RULE, {**RULE, "usd_per_gb": usd}])

    @pytest.mark.parametrize("missing", ["host", "usd_per_gb"])
    def test_a_host_and_its_price_are_needed(self, missing: str) -> None:
        with pytest.raises(ValueError, match=r"egress\[0\] needs host and usd_per_gb"):
            parse_egress([{key: value for key, value in RULE.items() if key != missing}])

    @pytest.mark.parametrize("raw", [None, {}, 1, "{}", "host=0.09", "[", '["x"]', [1], [[]], DEEP])
    def test_rules_are_an_array_of_tables(self, raw: object) -> None:
        with pytest.raises(ValueError, match="give "):
            parse_egress(raw)

    def test_an_unknown_field_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"egress\[0\] has no field 'usd'; known are host, usd_per_gb"):
            parse_egress([{**RULE, "usd": 1}])


class TestKeys:
    @pytest.mark.parametrize(
        ("raw", "key"),
        [
            (f"fly=k1:{SECRET}", EndpointKey("fly", "k1", SECRET)),
            (f"fly-iad=A_b-9:{'!' * 16}", EndpointKey("fly-iad", "A_b-9", "!" * 16)),
            (f"a=k:{SECRET}:=x", EndpointKey("a", "k", f"{SECRET}:=x")),
            (f"a={'k' * 64}:{'x' * 256}", EndpointKey("a", "k" * 64, "x" * 256)),
        ],
    )
    def test_a_key(self, raw: str, key: EndpointKey) -> None:
        assert endpoint_key(raw) == key

    @pytest.mark.parametrize(
        "raw",
        ["", "fly", f"k1:{SECRET}", f"=k1:{SECRET}", f"fly={SECRET}", f"fly=:{SECRET}", "fly=k1:", f"fly=k1:{SECRET[:-1]}",
         f"fly=k1:{'x' * 257}", f"fly={'k' * 65}:{SECRET}", f"Fly=k1:{SECRET}", f"fly=k.1:{SECRET}", f"fly=k1:{SECRET} x",
         f"fly=k1:{SECRET},", f"fly=k1:{SECRET}é", f"fly=k1:{SECRET}\n", f" fly=k1:{SECRET}", 1, None, [f"fly=k1:{SECRET}"]],
    )  # fmt: skip
    def test_what_is_none_is_refused_and_not_shown(self, raw: object) -> None:
        with pytest.raises(ValueError, match="substrate=keyid:secret") as caught:
            endpoint_key(raw)
        assert SECRET[:-1] not in str(caught.value)

    def test_a_secret_is_not_printed(self) -> None:
        assert SECRET not in repr(endpoint_key(f"fly=k1:{SECRET}"))


_names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True)
_texts = st.text(min_size=1).map(str.strip).filter(bool)
_prices = st.builds(Prices, *[st.floats(0, 1e6)] * len(fields(Prices)))
_specs = st.builds(
    SubstrateSpec,
    name=_names,
    kind=_names,
    url=st.none() | st.sampled_from(["https://host", "http://[::1]:8080/x"]),
    function=st.none() | st.sampled_from(["f", "f:live"]),
    region=st.none() | _texts,
    provider=st.none() | _texts,
    trust=st.sampled_from([None, "any", "verified", "own"]),
    slots=st.none() | st.integers(1, 100_000),
    memory_mb=st.none() | st.integers(1, 1 << 24),
    max_range_bytes=st.none() | st.integers(1, 1 << 45),
    max_duration_s=st.none() | st.floats(0.001, 3600),
    overhead_s=st.none() | st.floats(0, 3600),
    bytes_per_s=st.none() | st.floats(1, 1e15),
    prices=st.none() | _prices,
    script=st.none() | st.sampled_from(["{}", '{"a": [1, null]}']),
)
_rules = st.builds(
    EgressRule,
    host=st.sampled_from(["a", "*.b.c", "s3://x-*"]),
    usd_per_gb=st.floats(0, 1000),
    provider=st.none() | _texts,
    region=st.none() | _texts,
)


@patient
@given(
    st.lists(_specs, max_size=4, unique_by=lambda spec: spec.name).map(tuple), st.lists(_rules, max_size=4).map(tuple)
)
def test_what_is_written_is_read_again(specs: tuple[SubstrateSpec, ...], rules: tuple[EgressRule, ...]) -> None:
    if specs:
        assert parse_substrates(to_json(specs)) == specs
    if rules:
        assert parse_egress(to_json(rules)) == rules


@pytest.mark.parametrize("parse", [parse_substrates, parse_egress])
@patient
@given(raw=json_values | st.dictionaries(_names, st.dictionaries(st.sampled_from(sorted(FLY)), json_values), max_size=2)
       | st.lists(st.dictionaries(st.sampled_from(sorted(RULE)), json_values), max_size=2) | st.text())  # fmt: skip
def test_any_json_is_parsed_or_is_a_value_error(parse: Callable[[object], tuple[Any, ...]], raw: object) -> None:
    try:
        told = str(hash(parse(raw)))
    except ValueError as error:
        told = str(error)
    assert told
