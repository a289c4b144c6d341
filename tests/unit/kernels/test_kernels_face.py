"""The module's functions: what they return, fused and its ways to name an op, and letting go of the GIL."""

import threading
import time

import pytest

from packetfs_compute import kernels, names

DATA = bytes(range(256)) * 200  # past the size at which the GIL is let go
CHECK = b"123456789"


def test_the_names_that_the_design_fixes_are_exported():
    fixed = {*names.OPS, "crc32c_combine", "fused", "implementations", "active", "FNV64_OFFSET"}
    assert fixed <= set(kernels.__all__)
    assert all(hasattr(kernels, name) for name in kernels.__all__)
    assert kernels.FNV64_OFFSET == names.FNV64_OFFSET


def test_each_function_and_its_defaults():
    assert kernels.counteq(b"a\nb\n", 10) == 2
    assert kernels.crc32c(CHECK) == 0xE3069283
    assert kernels.fnv64(b"foobar") == 0x85944171F73967E8
    assert kernels.xor(b"\x01\x02\x04", 8) == 15
    assert kernels.add(b"\xff\x01", 1) == 2
    assert kernels.fnv64(b"") == kernels.FNV64_OFFSET


def test_running_values_chain_as_in_zlib():
    assert kernels.counteq(b"\n", 10, 5) == kernels.counteq(b"\n", 10, value=5) == 6
    assert kernels.crc32c(CHECK[4:], kernels.crc32c(CHECK[:4])) == 0xE3069283
    assert kernels.fnv64(b"bar", kernels.fnv64(b"foo")) == 0x85944171F73967E8
    assert kernels.xor(b"\x04", 8, kernels.xor(b"\x01\x02", 8)) == 15
    assert kernels.add(b"\x01", 1, kernels.add(b"\xff", 1)) == 2
    assert kernels.crc32c_combine(kernels.crc32c(CHECK[:4]), kernels.crc32c(CHECK[4:]), 5) == 0xE3069283


class TestFused:
    def test_an_op_may_be_a_name_a_pair_or_the_wires_mapping(self):
        ops = [
            "crc32c",
            ("counteq", 10),
            {"op": "counteq", "imm": 10},
            ["fnv64", None],
            {"op": "fnv64", "seed": "cbf29ce484222325"},
            {"op": "xor", "imm": 3},
            ("add", 255),
        ]
        values = [0, 1, 2, kernels.FNV64_OFFSET, 7, 4, 5]
        assert kernels.fused(DATA, ops, values) == [
            kernels.crc32c(DATA),
            kernels.counteq(DATA, 10, 1),
            kernels.counteq(DATA, 10, 2),
            kernels.fnv64(DATA),
            kernels.fnv64(DATA, 7),
            kernels.xor(DATA, 3, 4),
            kernels.add(DATA, 255, 5),
        ]

    def test_values_are_any_sequence_and_are_not_changed(self):
        values = (1, 2)
        assert kernels.fused(b"\n", ["crc32c", ("counteq", 10)], values)[1] == 3
        assert values == (1, 2)

    def test_no_ops_at_all(self):
        assert kernels.fused(DATA, [], []) == []

    def test_more_ops_than_a_program_may_have(self):
        assert kernels.fused(b"ab", [("counteq", 97)] * 100, range(100)) == list(range(1, 101))

    def test_a_plan_is_parsed_once_and_takes_chunk_after_chunk(self):
        plan, values = kernels.plan(["crc32c", ("add", 1)]), [0, 0]
        for start in range(0, len(DATA), 1000):
            values = plan.run(memoryview(DATA)[start : start + 1000], values)
        assert values == [kernels.crc32c(DATA), kernels.add(DATA, 1)]

    @pytest.mark.parametrize(
        ("op", "error", "says"),
        [
            ("md5", ValueError, r"ops\[1\] is 'md5': known are counteq, crc32c, fnv64, xor, add"),
            ("x" * 9999, ValueError, r"ops\[1\] is 'x{64}': known are "),
            ("xor", ValueError, r"ops\[1\]: xor needs an imm from 0 to 255"),
            (("xor", 256), ValueError, r"ops\[1\]: imm must be from 0 to 255, not 256"),
            ({"op": "xor", "imm": -1}, ValueError, r"ops\[1\]: imm must be from 0 to 255, not -1"),
            (("xor", "3"), TypeError, r"ops\[1\]: imm must be an integer, not 'str'"),
            (("crc32c", 3), ValueError, r"ops\[1\]: crc32c takes no imm"),
            ({"imm": 3}, TypeError, r"ops\[1\]: the name must be a string, not 'NoneType'"),
            ({"op": "xor", "immediate": 3}, ValueError, r"ops\[1\]: immediate is not a known field"),
            (("xor", 1, 2), TypeError, r"ops\[1\] must be a name, a \(name, imm\) pair or a mapping, not 'tuple'"),
            (b"crc32c", TypeError, r"ops\[1\] must be a name, .*, not 'bytes'"),
            (None, TypeError, r"ops\[1\] must be a name, .*, not 'NoneType'"),
        ],
    )
    def test_a_wrong_op_is_refused_by_its_index(self, op, error, says):
        with pytest.raises(error, match=f"^{says}"):
            kernels.fused(DATA, ["crc32c", op], [0, 0])

    @pytest.mark.parametrize("ops", ["crc32c", b"crc32c", {"op": "crc32c"}, 5, None])
    def test_ops_that_are_no_sequence_of_ops(self, ops):
        with pytest.raises(TypeError, match=f"^ops must be a sequence of ops, not '{type(ops).__name__}'$"):
            kernels.fused(DATA, ops, [0])

    @pytest.mark.parametrize("face", [None, "python"])
    def test_wrong_values(self, face):
        plan = kernels.using(face).plan((("crc32c", 0), ("xor", 1)))
        for values in ([], [0], [0, 0, 0]):
            with pytest.raises(ValueError, match=f"^values must have one entry for each op: 2, not {len(values)}$"):
                plan.run(DATA, values)
        for values in ("00", 0, None, {1, 2}):
            with pytest.raises(TypeError, match=r"^values must be a sequence of integers, not '"):
                plan.run(DATA, values)

    @pytest.mark.parametrize("face", [None, "python"])
    def test_a_plan_below_the_parser_checks_what_it_is_given(self, face):
        k = kernels.using(face)
        with pytest.raises(ValueError, match="'md5' is not an op"):
            k.plan((("md5", 0),))
        with pytest.raises(ValueError, match="imm must be from 0 to 255, not 256"):
            k.plan((("xor", 256),))

    @pytest.mark.parametrize("spec", [*names.OPS, *((op, imm) for op in names.OPS for imm in (None, 0, 7, 255))])
    def test_what_is_parsed_in_c_is_what_is_parsed_in_python(self, spec):
        name, imm = (spec, None) if isinstance(spec, str) else spec
        slow = {"op": name} if imm is None else {"op": name, "imm": imm}  # mappings are Python's
        if (imm is None) == (name in names.OPS_WITH_IMM):
            for op in (spec, slow):
                with pytest.raises(ValueError, match=rf"^ops\[0\]: {name} "):
                    kernels.plan([op])
        else:
            start = [kernels.FNV64_OFFSET if name == "fnv64" else 0]
            assert kernels.fused(DATA, [spec], start) == kernels.fused(DATA, [slow], start)

    @pytest.mark.parametrize(
        "op",
        [
            *(
                "md5",
                "xor",
                ("crc32c", 0),
                ("xor", 256),
                ("xor", -1),
                ("xor", 2**70),
                ("xor", 1.0),
                ("xor", True),
                ("xor",),
            ),
            *(("xor", 1, 2), ["xor", 1], {"op": "crc32c"}, b"crc32c", (b"xor", 1), None, 5),
        ],
    )
    def test_other_forms_are_left_to_python_without_an_error(self, op):
        for face in (None, "python"):
            assert kernels.using(face).plan_plain(("crc32c", op)) is None


needs_c = pytest.mark.skipif(kernels.native_error() is not None, reason=str(kernels.native_error()))


@needs_c
@pytest.mark.parametrize("how", ["one op", "fused"])
def test_other_threads_run_while_a_kernel_does(how):
    """Count how often this thread wakes between the call's start and its end.

    Were the GIL held, it could wake once or twice, at the edges; the call takes a quarter of a second and a nap a
    millisecond, so that even a busy machine leaves a wide margin.
    """
    k, data = kernels.using("portable"), bytes(256 << 20)
    plan = k.plan((("fnv64", 0),))
    call = {"one op": lambda: k.fnv64(data), "fused": lambda: plan.run(data, [0])}[how]
    begun, span = threading.Event(), []

    def work():
        begun.set()
        start = time.perf_counter()
        call()
        span.extend((start, time.perf_counter()))

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    awake = []
    while thread.is_alive():
        awake.append(time.perf_counter())
        time.sleep(0.001)
    thread.join()
    start, stop = span
    assert sum(start < moment < stop for moment in awake) >= 10


def test_threads_share_one_plan():
    plan, wanted = kernels.plan(["crc32c", ("add", 1)]), [kernels.crc32c(DATA), kernels.add(DATA, 1)]
    found = []
    threads = [
        threading.Thread(target=lambda: found.extend(plan.run(DATA, [0, 0]) for _ in range(50))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 400
