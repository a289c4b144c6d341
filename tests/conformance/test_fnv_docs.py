"""docs/fnv.md and the template's constants: the model hashes, the plot is of the table, the powers of p are powers of p."""

import random
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from kernel_vectors import FNV64_VECTORS, reference

REPOSITORY = Path(__file__).parents[2]
CSRC = REPOSITORY / "packetfs_compute/kernels/csrc"
PRIME = 0x100000001B3


@pytest.fixture(scope="module")
def model():
    (code,) = re.findall(
        r"^```python\n(.*?)^```", (REPOSITORY / "docs/fnv.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    names = {}
    exec(compile(code, "docs/fnv.md", "exec"), names)
    return names


def test_the_model_in_the_document_hashes(model):
    for data, value in FNV64_VECTORS:
        assert model["fnv64"](data) == value
    random.seed(1)
    for length in range(70):
        data, start = random.randbytes(length), random.getrandbits(64)
        assert model["fnv64"](data, start) == reference("fnv64", data, value=start)


def test_its_f_is_what_the_multiplication_adds(model):
    for u in range(256):
        planes = [u >> k & 1 for k in range(8)]
        product = 0xB3 * u % 256
        for k in range(8):
            below = planes[:k] + [0] * (8 - k)
            assert model["f"](below, k) & 1 == (product ^ u) >> k & 1, (u, k)


def test_the_worked_example(model):
    text = (REPOSITORY / "docs/fnv.md").read_text("utf-8")
    rows = re.findall(r"^\| (\w\w) \| (\w\w) \| (\w\w) \| (-?\d+) \| (\w\w) \|$", text, re.MULTILINE)
    assert [int(row[0], 16) for row in rows] == list(b"foo")
    h = 0xCBF29CE484222325
    for byte, low, high, d, after in rows:
        assert h % 256 == int(low, 16)
        assert h % 256 ^ int(byte, 16) == int(high, 16) == int(low, 16) + int(d)
        h = (h ^ int(byte, 16)) * PRIME % 2**64
        assert h % 256 == int(after, 16)


def test_the_plot_is_of_the_table():
    table = re.findall(r"^\| ([a-z]+\d\w*) \|", (REPOSITORY / "docs/fnv.md").read_text("utf-8"), re.MULTILINE)
    plot = ET.parse(REPOSITORY / "docs/fnv.svg").getroot()
    labels = [
        text.text for text in plot.iter("{http://www.w3.org/2000/svg}text") if text.get("class", "").startswith("label")
    ]
    assert sorted(labels) == sorted(table)
    assert table == ["avx512gfni", "avx512vnni", "avx512", "avx2", "ssse3", "sse2"]
    assert "prefers-color-scheme:dark" in plot[0].text


def test_the_powers_in_the_sources_are_squares_of_each_other():
    text = (CSRC / "fnv64_parts.h").read_text("utf-8")
    powers = {int(bit): int(power, 16) for bit, power in re.findall(r"FNV_BIT\(e, (\d+), (0x\w+)\)", text)}
    assert powers == {bit: pow(PRIME, 1 << bit, 1 << 64) for bit in range(13)}
    (inverse,) = re.findall(r"FNV_INVERSE UINT64_C\((0x\w+)\)", text)
    assert int(inverse, 16) * PRIME % 2**64 == 1
