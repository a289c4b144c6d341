"""What the kernels take and refuse, in C and in Python alike."""

import array
import gc
import mmap
import sys
import tracemalloc
import weakref

import numpy as np
import pytest

from packetfs_compute import kernels
from packetfs_compute.kernels import FNV64_OFFSET

FACES = sorted({name for names in kernels.implementations().values() for name in names})
DATA = bytes(range(256)) * 4


@pytest.fixture(params=FACES)
def k(request):
    return kernels.using(request.param)


def every_op(k, data, values=(0, 0, FNV64_OFFSET, 0, 0)):
    """Run each op alone, and all in one pass; the two must agree."""
    a, b, c, d, e = values
    alone = [k.counteq(data, 7, a), k.crc32c(data, b), k.fnv64(data, c), k.xor(data, 7, d), k.add(data, 7, e)]
    plan = k.plan((("counteq", 7), ("crc32c", 0), ("fnv64", 0), ("xor", 7), ("add", 7)))
    assert plan.run(data, values) == alone
    return alone


def mapped() -> mmap.mmap:
    page = mmap.mmap(-1, len(DATA))
    page[:] = DATA
    return page


def read_only() -> np.ndarray:
    array = np.frombuffer(DATA, np.uint8).copy()
    array.flags.writeable = False
    return array


BUFFERS = {
    "bytes": lambda: DATA,
    "bytearray": lambda: bytearray(DATA),
    "memoryview": lambda: memoryview(DATA),
    "memoryview slice": lambda: memoryview(b"xyz" + DATA + b"end")[3:-3],
    "memoryview 2-D": lambda: memoryview(DATA).cast("B", (32, 32)),
    "mmap": mapped,
    "array of bytes": lambda: array.array("B", DATA),
    "array of doubles": lambda: array.array("d", DATA),
    "numpy": lambda: np.frombuffer(DATA, np.uint8),
    "numpy read-only": read_only,
    "numpy slice": lambda: np.frombuffer(b"x" + DATA, np.uint8)[1:],
    "numpy 2-D": lambda: np.frombuffer(DATA, np.uint8).reshape(32, 32),
    "numpy 3-D rows": lambda: np.frombuffer(bytes(64) + DATA, np.uint8).reshape(-1, 4, 16)[1:],
    "numpy big-endian": lambda: np.frombuffer(DATA, ">u4"),
    "numpy records": lambda: np.frombuffer(DATA, [("a", "<u2"), ("b", ">f4"), ("c", "u1", (2,))]),
    "numpy complex": lambda: np.frombuffer(DATA, np.complex128),
    "numpy Fortran 1-D": lambda: np.asfortranarray(np.frombuffer(DATA, np.uint8)),
}
EMPTY = {
    "bytes": lambda: b"",
    "numpy (0,)": lambda: np.empty(0, ">f8"),
    "numpy (3, 0, 2)": lambda: np.empty((3, 0, 2), np.uint8),
    "memoryview slice": lambda: memoryview(DATA)[5:5],
}
STRIDED = {
    "memoryview": lambda: memoryview(DATA)[::2],
    "memoryview reversed": lambda: memoryview(DATA)[::-1],
    "numpy": lambda: np.frombuffer(DATA, np.uint8)[::2],
    "numpy column": lambda: np.frombuffer(DATA, np.uint8).reshape(32, 32)[:, 0],
    "numpy Fortran 2-D": lambda: np.asfortranarray(np.frombuffer(DATA, np.uint8).reshape(32, 32)),
}


@pytest.mark.parametrize("make", BUFFERS.values(), ids=BUFFERS.keys())
def test_any_contiguous_buffer_is_read(k, make):
    assert every_op(k, make()) == every_op(k, DATA)


@pytest.mark.parametrize("make", EMPTY.values(), ids=EMPTY.keys())
def test_an_empty_buffer_gives_the_running_values(k, make):
    assert every_op(k, make(), [5, 6, 7, 8, 9]) == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("make", STRIDED.values(), ids=STRIDED.keys())
def test_a_strided_buffer_is_refused_with_the_fix(k, make):
    for call in calls(k, make()):
        with pytest.raises(BufferError, match=r"data must be C-contiguous: .* numpy\.ascontiguousarray"):
            call()


@pytest.mark.parametrize("data", ["text", None, 5, 1.5, [1, 2], object()], ids=lambda data: type(data).__name__)
def test_what_is_not_bytes_is_refused_by_its_type(k, data):
    for call in calls(k, data):
        with pytest.raises(TypeError, match=f"^data must be a bytes-like object, not '{type(data).__name__}'$"):
            call()


def test_an_exporters_own_refusal_is_passed_on(k):
    view = memoryview(DATA)
    view.release()
    for call in calls(k, view):
        with pytest.raises(ValueError, match="released"):
            call()


def calls(k, data):
    """Return each way to hand ``data`` to a kernel."""
    return [
        lambda: k.counteq(data, 0),
        lambda: k.crc32c(data),
        lambda: k.fnv64(data),
        lambda: k.xor(data, 0),
        lambda: k.add(data, 0),
        lambda: k.plan((("crc32c", 0),)).run(data, [0]),
    ]


@pytest.mark.parametrize("op", ["counteq", "xor", "add"])
class TestImm:
    @pytest.mark.parametrize("imm", [0, 255, np.uint8(200), np.int64(7), True])
    def test_what_stands_for_an_integer_is_one(self, k, op, imm):
        run = getattr(k, op)
        assert run(DATA, imm) == run(DATA, int(imm))

    @pytest.mark.parametrize("imm", [-1, 256, 1 << 64, -(1 << 63), np.int64(-5)])
    def test_out_of_range_is_refused_and_never_masked(self, k, op, imm):
        shown = str(imm) if int(imm).bit_length() <= 64 else "an integer of 65 bits"
        with pytest.raises(ValueError, match=f"^imm must be from 0 to 255, not {shown}$"):
            getattr(k, op)(DATA, imm)

    def test_an_integer_too_long_to_print_is_refused_too(self, k, op):
        for sign in (1, -1):
            with pytest.raises(ValueError, match=r"^imm must be from 0 to 255, not an integer of 100001 bits$"):
                getattr(k, op)(DATA, sign << 100_000)

    @pytest.mark.parametrize("imm", [1.0, "7", b"7", None, np.float64(1)])
    def test_what_is_no_integer_is_refused(self, k, op, imm):
        with pytest.raises(TypeError, match=f"^imm must be an integer, not '(numpy.)?{type(imm).__name__}'$"):
            getattr(k, op)(DATA, imm)

    def test_it_is_required(self, k, op):
        with pytest.raises(TypeError, match=r"argument"):
            getattr(k, op)(DATA)


BITS = {"counteq": 64, "crc32c": 32, "fnv64": 64, "xor": 8, "add": 64}


@pytest.mark.parametrize(("op", "bits"), BITS.items())
class TestRunningValue:
    def run(self, k, op, value, data=b""):
        arguments = [data, 0] if op in {"counteq", "xor", "add"} else [data]
        return getattr(k, op)(*arguments, value)

    def test_its_whole_range_is_taken(self, k, op, bits):
        for value in (0, 1, (1 << bits) - 1):
            assert self.run(k, op, value) == value
            assert k.plan(((op, 0),)).run(b"", [value]) == [value]

    @pytest.mark.parametrize("far", [-1, 0, 1 << 5000])
    def test_out_of_range_is_refused_and_never_masked(self, k, op, bits, far):
        value = far if far < 0 else (1 << bits) + far
        most = (1 << bits) - 1
        with pytest.raises(ValueError, match=f"^value must be from 0 to {most}, not "):
            self.run(k, op, value)
        with pytest.raises(ValueError, match=rf"^values\[1\] must be from 0 to {most}, not "):
            k.plan((("xor", 0), (op, 0))).run(b"", [0, value])

    def test_what_is_no_integer_is_refused(self, k, op, bits):
        with pytest.raises(TypeError, match=r"^value must be an integer, not 'str'$"):
            self.run(k, op, "0")
        with pytest.raises(TypeError, match=r"^values\[0\] must be an integer, not 'float'$"):
            k.plan(((op, 0),)).run(b"", [0.0])


@pytest.mark.parametrize("op", ["counteq", "add"])
def test_a_count_past_64_bits_is_an_error_and_not_a_wrong_number(k, op):
    run, most = getattr(k, op), (1 << 64) - 1
    imm = 0 if op == "counteq" else 1
    assert run(bytes(9), imm, most - 9) == most
    with pytest.raises(OverflowError, match="64 bits"):
        run(bytes(9), imm, most - 8)
    assert k.plan(((op, imm),)).run(bytes(9), [most - 9]) == [most]
    with pytest.raises(OverflowError, match="64 bits"):
        k.plan(((op, imm),)).run(bytes(9), [most - 8])


@pytest.mark.parametrize("place", [0, 1, 2])
def test_combine_refuses_what_is_out_of_range(k, place):
    name, most = [("a", (1 << 32) - 1), ("b", (1 << 32) - 1), ("len_b", (1 << 63) - 1)][place]
    arguments = [1, 2, 3]
    for wrong in (-1, most + 1, 1 << 9999):
        arguments[place] = wrong
        with pytest.raises(ValueError, match=f"^{name} must be from 0 to {most}, not "):
            k.crc32c_combine(*arguments)
    arguments[place] = most
    assert 0 <= k.crc32c_combine(*arguments) < 1 << 32
    arguments[place] = 1.0
    with pytest.raises(TypeError, match=f"^{name} must be an integer, not 'float'$"):
        k.crc32c_combine(*arguments)


def test_too_few_or_too_many_arguments_are_refused(k):
    for call in (k.crc32c, k.fnv64, k.counteq, k.xor, k.add, k.crc32c_combine):
        for arguments in ((), (b"", 0, 0, 0)):
            with pytest.raises(TypeError, match="argument"):
                call(*arguments)


def test_a_buffer_is_let_go_after_success_and_after_every_error(k):
    data = bytearray(DATA)
    k.crc32c(data)
    k.plan((("crc32c", 0),)).run(data, [0])
    for call in (lambda: k.xor(data, 256), lambda: k.crc32c(data, -1), lambda: k.add(data, 1, (1 << 64) - 1)):
        with pytest.raises((ValueError, OverflowError)):
            call()
    data.append(0)  # BufferError, were a view of it still held
    strided = memoryview(data)[::2]
    with pytest.raises(BufferError, match="contiguous"):
        k.crc32c(strided)
    gc.collect()  # the error's traceback holds the fallback's own view
    strided.release()  # the same


def test_nothing_is_copied(k):
    data = np.zeros((8, 1 << 20), np.uint8)
    tracemalloc.start()
    try:
        k.counteq(data, 0)
        k.crc32c(data)
        k.plan((("xor", 1), ("add", 1))).run(data, [0, 0])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 << 20  # the Python fallback works on blocks of 64 KiB; the C kernels need nothing


def test_no_reference_is_lost_or_kept(k):
    data, values, wrong = bytearray(DATA), [1 << 40], [1 << 70]
    plan = k.plan((("fnv64", 0),))
    objects = (data, values, values[0], wrong, wrong[0], plan)
    before = [sys.getrefcount(item) for item in objects]
    for _ in range(100):
        plan.run(data, values)
        k.fnv64(data, values[0])
        for call in (lambda: plan.run(data, wrong), lambda: k.fnv64(data, wrong[0]), lambda: k.xor(data, values[0])):
            with pytest.raises(ValueError):
                call()
    gc.collect()
    assert [sys.getrefcount(item) for item in objects] == before


def test_an_object_that_misbehaves_is_not_believed(k):
    class Raising:
        def __index__(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        k.xor(DATA, Raising())
    with pytest.raises(ZeroDivisionError):
        k.crc32c(DATA, Raising())


def test_kernels_can_be_collected():
    """The C types are heap types: an instance in a cycle must not keep its module alive."""
    names = []

    class Holder:
        pass

    for name in FACES:
        holder = Holder()
        holder.me, holder.kernels = holder, kernels.using(name)
        holder.plan = holder.kernels.plan((("crc32c", 0),))
        names.append(weakref.ref(holder))
        del holder
    gc.collect()
    assert [name() for name in names] == [None] * len(FACES)
