"""What is typed at the shell, and what it means."""

from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.untrusted import patient

from packetfs_compute.cli.params import OPERATION, POLICY, SIZE, local_file, policy_of


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("10b", 10),
        ("1k", 1000),
        ("1kB", 1000),
        ("1KiB", 1024),
        ("2m", 2_000_000),
        ("8MiB", 8 << 20),
        (" 8 mib ", 8 << 20),
        ("1GB", 10**9),
        ("1gib", 1 << 30),
        ("3T", 3 * 10**12),
        ("1TiB", 1 << 40),
        ("999999999999999999", 10**18 - 1),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert SIZE.convert(text, None, None) == size
    assert SIZE.convert(size, None, None) == size


@pytest.mark.parametrize(
    "text", ["", " ", "-1", "1.5", "1.5GB", "1e3", "0x10", "x", "1xb", "1PiB", "MiB", "1 2", "١", "9" * 19]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(click.BadParameter, match="such as 4096, 8MiB, 1GB"):
        SIZE.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "op"),
    [
        ("crc32c", {"op": "crc32c"}),
        ("fnv64", {"op": "fnv64"}),
        ("counteq", {"op": "counteq"}),
        ("counteq:10", {"op": "counteq", "imm": 10}),
        ("xor:0xff", {"op": "xor", "imm": 255}),
        ("add:0", {"op": "add", "imm": 0}),
        ("add:256", {"op": "add", "imm": 256}),  # refused with the program, in one place
    ],
)
def test_operations(text: str, op: dict[str, Any]) -> None:
    assert OPERATION.convert(text, None, None) == op
    assert OPERATION.convert(op, None, None) is op


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "use one of counteq, crc32c, fnv64, xor, add"),
        ("sha256", "'sha256' is no operation"),
        ("CRC32C", "is no operation"),
        ("crc32c:1", "takes no immediate; write crc32c alone"),
        ("fnv64:", "takes no immediate"),
        ("xor:", "'' is no byte"),
        ("xor:1.0", "'1.0' is no byte"),
        ("xor:ff", "write 0 to 255, such as xor:10 or xor:0x0a"),
        ("xor:1:2", "'1:2' is no byte"),
        (f"xor:{'9' * 5000}", "is no byte"),
    ],
)
def test_what_is_no_operation(text: str, says: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        OPERATION.convert(text, None, None)
    assert says in str(caught.value.message)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("goal=cheapest", {"goal": "cheapest"}),
        ("deadline_s=5", {"deadline_s": 5}),
        ("deadline_s=0.5", {"deadline_s": 0.5}),
        ("max_cost_usd=1e-5", {"max_cost_usd": 1e-5}),
        ("substrates=local,fly,", {"substrates": ["local", "fly"]}),
        ("exclude=", {"exclude": []}),
        ("exclude=5", {"exclude": ["5"]}),
        ("goal=a=b", {"goal": "a=b"}),
        ("goal=", {"goal": ""}),
        ('{"goal": "fastest", "exclude": ["fly"]}', {"goal": "fastest", "exclude": ["fly"]}),
        (" {}", {}),
    ],
)
def test_policies(text: str, policy: dict[str, Any]) -> None:
    assert POLICY.convert(text, None, None) == policy
    assert POLICY.convert(policy, None, None) is policy


@pytest.mark.parametrize("text", ["", "cheapest", "{", '{"goal"}', "{goal: fastest}", "[1]"])
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(click.BadParameter):
        POLICY.convert(text, None, None)


@patient
@given(st.text())
def test_any_text_is_taken_or_is_bad_usage(text: str) -> None:
    for kind in (SIZE, OPERATION, POLICY):
        try:
            kind.convert(text, None, None)
        except click.BadParameter as error:
            assert error.message  # noqa: PT017  (either is right)


def test_later_parts_of_a_policy_win() -> None:
    assert policy_of(()) is None
    assert policy_of(({},)) is None
    assert policy_of(({"goal": "fastest", "trust": "own"}, {"goal": "cheapest"})) == {
        "goal": "cheapest",
        "trust": "own",
    }


@pytest.mark.parametrize(
    "source",
    ["https://host/x", "s3://bucket/key", "file:///x", "FTP://host", "http://[::1", "x-1+a.b://", "http://a b"],
)
def test_a_url_is_no_file(source: str) -> None:
    assert local_file(source) is None


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("x", "{cwd}/x"),
        ("./a/../x", "{cwd}/x"),
        ("/a/b", "/a/b"),
        ("~/x", "{home}/x"),
        ("~no-such-user-here/x", "{cwd}/~no-such-user-here/x"),
        ("a:b", "{cwd}/a:b"),
        ("s3:/bucket/key", "{cwd}/s3:/bucket/key"),
        ("1://x", "{cwd}/1:/x"),
        ("://x", "{cwd}/:/x"),
        ("☃ %20?#", "{cwd}/☃ %20?#"),
    ],
)
def test_anything_else_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    real = tmp_path.resolve()
    assert local_file(source) == Path(path.format(cwd=real, home=real / "home"))
