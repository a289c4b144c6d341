"""Manifests: what a line may hold, what is wrong with one and where; the same in JSON Lines as in CSV."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.untrusted import HUGE, json_values, patient

from packetfs_compute.errors import ConfigurationError
from packetfs_compute.verifying import Check, parse_check, read_manifest
from packetfs_compute.verifying import manifest as module
from packetfs_compute.verifying.check import FIELDS, Wrong

URL = "https://host/a"
CRC, FNV = "8a9136aa", "cbf29ce484222325"


@pytest.mark.parametrize(
    ("raw", "check"),
    [
        ({"source": URL, "crc32c": CRC}, Check(URL, "crc32c", CRC)),
        ({"source": URL, "crc32c": " 0x8A9136AA"}, Check(URL, "crc32c", CRC)),
        ({"source": URL, "fnv64": FNV.upper()}, Check(URL, "fnv64", FNV)),
        ({"source": "s3://b/k", "against": "/a/file", "size": 0}, Check("s3://b/k", "against", "/a/file", 0)),
        ({"source": URL}, Check(URL, "declared")),
        ({"source": URL, "crc32c": "", "fnv64": None, "size": " 12 "}, Check(URL, "declared", "", 12)),
        ({"source": "file:///a", "crc32c": CRC, "size": 2**53 - 1}, Check("file:///a", "crc32c", CRC, 2**53 - 1)),
    ],
)
def test_what_parses(raw: dict[str, Any], check: Check) -> None:
    assert parse_check(raw) == check


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({}, "source"),
        *[({"source": value, "crc32c": CRC}, "source") for value in ("", 7, "host/a", "ftp://host/a", "https://", ["x"],
                                                                     "a.txt", "/a\nb", "https://h/" + "x" * 2048)],
        *[({"source": URL, "crc32c": value}, "crc32c") for value in ("8a9136a", CRC + "0", "2316035459", 7, "8a9136ag")],
        *[({"source": URL, "fnv64": value}, "fnv64") for value in (CRC, FNV + "0", 0, True)],
        *[({"source": URL, "against": value}, "against") for value in ("mirror", 7, "x" * 3000)],
        *[({"source": URL, "size": value}, "size") for value in (-1, 1.5, "-1", "1e3", True, 2**53, "9" * 17, HUGE, [1])],
        ({"source": URL, "crc32c": CRC, "fnv64": FNV}, "fnv64"),
        ({"source": URL, "crc32c": CRC, "against": URL}, "against"),
        ({"source": URL, "crc32": CRC}, "crc32"),
        ({"source": URL, "sha256": None}, "sha256"),
    ],
)  # fmt: skip
def test_what_is_refused_names_the_field_and_the_fix(raw: dict[str, Any], field: str) -> None:
    with pytest.raises(Wrong) as caught:
        parse_check(raw)
    assert caught.value.field == field
    assert caught.value.fix
    assert len(str(caught.value)) < 250


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        read_manifest(path)
    return caught.value


LINES = [
    {"source": URL, "crc32c": CRC, "size": 3},
    {"source": "s3://bucket/a, \"b\" é", "fnv64": FNV},
    {"source": URL + "2", "against": URL},
    {"source": URL + "3"},
]  # fmt: skip


def as_json(lines: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def as_csv(lines: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS)
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


@pytest.mark.parametrize(("name", "write"), [("m.jsonl", as_json), ("m.CSV", as_csv), ("manifest", as_json)])
class TestBoth:
    def test_each_line_is_a_check(self, tmp_path: Path, name: str, write: Any) -> None:
        assert read_manifest(written(tmp_path / name, write(LINES))) == [parse_check(line) for line in LINES]

    def test_empty_lines_a_byte_order_mark_and_repetition_are_nothing(
        self, tmp_path: Path, name: str, write: Any
    ) -> None:
        text = "\ufeff" + write([*LINES, *LINES]).replace("\n", "\n\n") + "\n"
        assert read_manifest(written(tmp_path / name, text)) == [parse_check(line) for line in LINES]

    def test_what_is_wrong_is_told_with_its_line_and_field(self, tmp_path: Path, name: str, write: Any) -> None:
        path = written(tmp_path / name, write([*LINES, {"source": URL, "crc32c": "xyz"}]))
        error = refusal(path)
        line = 6 if name == "m.CSV" else 5
        assert str(error) == f"{path} line {line}: crc32c is 'xyz'"
        assert (error.details["field"], error.details["line"]) == ("crc32c", line)
        assert error.hint == "give 8 hexadecimal digits"

    def test_nothing_in_it_is_no_manifest(self, tmp_path: Path, name: str, write: Any) -> None:
        assert "nothing to verify" in str(refusal(written(tmp_path / name, write([]))))

    def test_no_more_than_can_be_kept(
        self, tmp_path: Path, name: str, write: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MAX_CHECKS", 3)
        assert "is over the 3 checks" in str(refusal(written(tmp_path / name, write(LINES))))


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("m.jsonl", '{"source": "https://h/a"}\n{"source": ', "line 2: is no JSON"),
        ("m.jsonl", '["https://h/a"]', "line 1: is a list of 1 items"),
        ("m.jsonl", "[" * 9000, "line 1: is no JSON"),
        ("m.jsonl", "9" * 5000, "line 1: is no JSON"),
        ("m.jsonl", '{"source": "https://h/' + "x" * 20000, "line 1: is longer than"),
        ("m.csv", "https://h/a,8a9136aa\n", "line 1: has the column 'https://h/a'"),
        ("m.csv", "source,source\n", "line 1: has the column 'source'"),
        ("m.csv", "source,crc32c\nhttps://h/a,8a9136aa,7\n", "line 2: has more cells"),
        ("m.csv", 'source\n"https://h/a"b\n', "line 2: is no CSV"),
    ],
)
def test_what_is_no_line(tmp_path: Path, name: str, text: str, told: str) -> None:
    error = refusal(written(tmp_path / name, text))
    assert told in str(error)
    assert error.hint


def test_what_is_no_text_and_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"\xff\xfe")
    assert "is not UTF-8" in str(refusal(tmp_path / "m"))
    assert "cannot be read: No such file" in str(refusal(tmp_path / "none"))
    assert "cannot be read: Is a directory" in str(refusal(tmp_path))


def outcome(raw: dict[str, Any]) -> Check | Wrong:
    try:
        return parse_check(raw)
    except Wrong as wrong:
        return wrong


@patient
@given(
    json_values | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=3), json_values | st.just(URL), max_size=3)
)
def test_any_json_parses_or_is_wrong_somewhere(raw: Any) -> None:
    if not isinstance(raw, dict):
        return
    found = outcome(raw)
    if isinstance(found, Wrong):
        assert found.fix
        assert len(str(found)) < 250
        assert str(found).isprintable()
    else:
        assert hash(found) == hash(parse_check(raw))


_SOURCES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), min_size=1, max_size=20)
_CHECKS = st.builds(
    lambda key, kind, number, size: {
        "source": f"s3://bucket/{key}",
        **({"crc32c": f"{number % 2**32:08X}"} if kind == 0 else {"fnv64": f"{number:016x}"} if kind == 1 else {}),
        **({} if size is None else {"size": size}),
    },
    _SOURCES,
    st.integers(0, 2),
    st.integers(0, 2**64 - 1),
    st.none() | st.integers(0, 2**53 - 1),
)


@patient
@given(st.lists(_CHECKS, min_size=1, max_size=6))
def test_both_formats_say_the_same(tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("both")
    expected = list(dict.fromkeys(map(parse_check, lines)))
    assert read_manifest(written(folder / "m.jsonl", as_json(lines))) == expected
    (folder / "m.csv").write_bytes(as_csv(lines).encode())
    assert read_manifest(folder / "m.csv") == expected
