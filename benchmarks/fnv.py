"""fnv64 on each instruction set beside its serial loop, size by size, in one process; and the plot of ``docs/fnv.md``.

    python benchmarks/fnv.py                        # 1 KiB to 64 MiB; half a minute
    python benchmarks/fnv.py --svg docs/fnv.svg     # and the plot

The serial loop is the implementation ``portable``: the definition, one multiplication a byte, as every other package has
it. Each value is checked against it before anything is timed.
"""

import random
from functools import partial
from pathlib import Path
from typing import Any

from _harness import facts, interleaved, machine, markdown, options, ratio, size_text, write_json
from _plot import Line, panels

from packetfs_compute import kernels

SERIAL = "portable"
SIZES = [1 << power for power in range(10, 27, 2)]
QUICK = [4 << 10, 64 << 10, 1 << 20]


def measured(names: list[str], size: int, rounds: int) -> dict[str, float]:
    """Return the GB/s of each implementation over the same ``size`` bytes, best of the rounds."""
    data = random.Random(1).randbytes(size)
    calls = {name: partial(kernels.using(name).fnv64, data) for name in names}
    wanted = calls[SERIAL]()
    for name, call in calls.items():
        if call() != wanted:
            raise SystemExit(f"{name} gives another value on {size_text(size)}")
    return {name: timing.rate(size) for name, timing in interleaved(calls, rounds).items()}


def main() -> None:
    parser = options("fnv64 beside its serial loop.", rounds=40)
    parser.add_argument("--svg", type=Path, help="write the plot to this file")
    chosen = parser.parse_args()
    sizes, rounds = (QUICK, 5) if chosen.quick else (SIZES, chosen.rounds)
    names = [name for name in kernels.implementations()["fnv64"] if name != "python"]
    described = machine() | {"best of interleaved rounds": rounds}
    print(facts(described))
    rates = {size: measured(names, size, rounds) for size in sizes}
    faster = {name: [rates[size][name] / rates[size][SERIAL] for size in sizes] for name in names if name != SERIAL}
    print("\n### Times the serial loop\n")
    heads = ["on", *map(size_text, sizes)]
    print(markdown(heads, [[name, *map(ratio, values)] for name, values in faster.items()]))
    print("\n### GB/s\n")
    print(markdown(heads, [[name, *(ratio(rates[size][name]) for size in sizes)] for name in names]))
    if chosen.svg:
        lines = [Line(name, values, "peer") for name, values in faster.items()]
        title = f"FNV-1a 64 on {described['cpu']} ({described['family_model']})"
        chosen.svg.write_text(panels(title, [*map(size_text, sizes)], {"times the serial loop": lines}), "utf-8")
    document: dict[str, Any] = {"machine": described, "gb_s": rates}
    if chosen.json:
        write_json(chosen.json, document)


if __name__ == "__main__":
    main()
