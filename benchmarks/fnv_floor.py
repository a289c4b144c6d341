"""What this CPU takes for the instructions of fnv64's AVX-512 forms when none waits for another: a floor for the kernel.

    python benchmarks/fnv_floor.py

The mixes are counted in gcc's code for ``fnv64_simd.h``, for 512 bytes. They are run in random order, on registers that
nobody waits for and on 4 KiB of memory, so what is measured is the execution units and nothing else: a form of the
kernel with these instructions cannot be faster. The serial loop takes four cycles a byte, 2048 for 512.
"""

import argparse
import random
import subprocess
import tempfile
from pathlib import Path

from _harness import facts, machine, markdown

SERIAL = 4 * 512
ROUNDS, CALLS, ORDERS = 40, 4000, 3

ASM = {
    "unpack": "vpunpcklbw %%zmm30, %%zmm31, %%zmm{r}",
    "shift": "vpsllw $4, %%zmm30, %%zmm{r}",
    "of three": "vpternlogq $0x96, %%zmm30, %%zmm31, %%zmm{r}",
    "of two": "vpxorq %%zmm30, %%zmm31, %%zmm{r}",
    "affine": "vgf2p8affineqb $0, %%zmm30, %%zmm31, %%zmm{r}",
    "maddubs": "vpmaddubsw %%zmm30, %%zmm31, %%zmm{r}",
    "madd": "vpmaddwd %%zmm30, %%zmm31, %%zmm{r}",
    "add": "vpaddd %%zmm30, %%zmm31, %%zmm{r}",
    "dpwssd": "vpdpwssd %%zmm30, %%zmm31, %%zmm{r}",
    "load": "vmovdqa64 {m}(%0), %%zmm{r}",
    "weights": "vbroadcasti32x4 {m}(%0), %%zmm{r}",
    "store": "vmovdqa64 %%zmm{r}, {m}(%0)",
}
"""What each is in assembly, on vectors of 512 bits; all of a kind run on the same units."""

PLANES = {"unpack": 48, "shift": 52, "of three": 70, "of two": 35, "maddubs": 16}
MEMORY = {"load": 71, "weights": 32, "store": 28}
MIXES = {
    "AVX-512": PLANES | {"madd": 64, "add": 64},
    "with VNNI": PLANES | {"dpwssd": 64},
    # Both 8x8 bit transpositions as one affine instruction each, between seven unpackings there and five back.
    "with VNNI and GFNI in this layout (not written)": PLANES
    | {"unpack": 112, "shift": 4, "of three": 22, "affine": 16, "dpwssd": 64},
}


FRAME = """#define _GNU_SOURCE
#include <stdio.h>
#include <time.h>
static _Alignas(4096) char memory[4096];
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}
static double best(void (*run)(long))
{
    double least = 1e9;
    for (int i = 0; i < %(rounds)d; i++) {
        double t = now();
        run(%(calls)d);
        t = now() - t;
        if (t < least)
            least = t;
    }
    return least;
}
static void chain(long n) /* each add waits a cycle for the one before */
{
    for (; n; n--)
        __asm__ volatile(".rept 100\\n\\tadd $1, %%%%rax\\n\\t.endr" : : : "rax");
}
%(functions)s
int main(void)
{
%(calls_of_all)s
}
"""


def function(name: str, mix: dict[str, int], order: int) -> str:
    """Return a function in C that runs the mix ``n`` times."""
    kinds = [kind for kind, count in mix.items() for _ in range(count)]
    random.Random(order).shuffle(kinds)
    code = "\\n\\t".join(ASM[kind].format(r=i % 24, m=64 * (i % 64)) for i, kind in enumerate(kinds))
    changed = ", ".join(f'"xmm{i}"' for i in range(32))
    statement = f'__asm__ volatile("{code}" : : "r"(memory) : {changed}, "memory");'
    return f"static void {name}(long n)\n{{\n    for (; n; n--)\n        {statement}\n}}"


def program(mixes: list[dict[str, int]]) -> str:
    """Return a program that prints the cycles of each order of each mix, its best round."""
    names = {f"mix{i}_{order}": (mix, order) for i, mix in enumerate(mixes) for order in range(ORDERS)}
    return FRAME % {
        "rounds": ROUNDS,
        "calls": CALLS,
        "functions": "\n".join(function(name, *what) for name, what in names.items()),
        "calls_of_all": "\n".join(f'    printf("%f\\n", best({name}) / best(chain) * 100);' for name in names),
    }


def cycles(mixes: list[dict[str, int]]) -> list[float]:
    """Compile the program, run it, and return the cycles of each mix."""
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder) / "floor.c", Path(folder) / "floor"
        source.write_text(program(mixes), "utf-8")
        subprocess.run(["cc", "-O1", "-std=gnu11", "-march=native", source, "-o", binary], check=True)
        out = subprocess.run([binary], check=True, capture_output=True, text=True).stdout
    numbers = [float(line) for line in out.split()]
    return [min(numbers[i : i + ORDERS]) for i in range(0, len(numbers), ORDERS)]


def main() -> None:
    argparse.ArgumentParser(description="A floor for fnv64 with AVX-512.").parse_args()
    described = machine()
    if "avx512bw" not in described["features"]:
        raise SystemExit("this CPU has no AVX-512")
    print(facts(described))
    bare = cycles(list(MIXES.values()))
    full = cycles([mix | MEMORY for mix in MIXES.values()])
    rows = [
        (name, str(sum(mix.values())), f"{a:.0f}", f"{SERIAL / a:.1f}", f"{b:.0f}", f"{SERIAL / b:.1f}")
        for (name, mix), a, b in zip(MIXES.items(), bare, full, strict=True)
    ]
    heads = ("for 512 bytes", "instructions", "cycles", "times serial", "cycles, loads and stores too", "times serial")
    print(f"\n### No faster than\n\n{markdown(heads, rows)}")


if __name__ == "__main__":
    main()
