/* packetfs_compute.kernels._native: the kernels as a CPython extension.
 *
 * Two immutable types. Kernels holds one implementation for each op and runs them; Plan holds the steps of a fused
 * pass, parsed once, for a caller that feeds chunk after chunk. _fallback.py is the same face in Python, and what the
 * arguments may be and how errors read is the same there.
 *
 * There is no state but the two types and the machine's features, set when the module is made, so that subinterpreters
 * and free threading need nothing more.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "packetfs_kernels.h"

#include <string.h>

/* From this many bytes on the GIL is let go: giving it up and taking it back costs about 0.1 us, 8 KiB take 0.3 us in
 * the fastest kernel and 8 us in the slowest. zlib does so from 5 KiB. */
#define GIL_BYTES 8192

/* Steps that a fused call keeps on its stack; names.py allows a program 16. */
#define STACK_STEPS 16

static const uint64_t MAX_VALUE[PFS_OPS] = {UINT64_MAX, UINT32_MAX, UINT64_MAX, UINT8_MAX, UINT64_MAX};

typedef struct {
    uint32_t features;
    PyTypeObject *kernels_type;
    PyTypeObject *plan_type;
} State;

typedef struct {
    PyObject_HEAD
    const struct pfs_implementation *chosen[PFS_OPS];
    pfs_combine combine;
} Kernels;

typedef struct {
    PyObject_VAR_HEAD
    struct {
        enum pfs_op op;
        uint8_t imm;
        pfs_kernel run;
    } steps[1]; /* ob_size of them */
} Plan;

/* ---- arguments ---- */

/* Raises ValueError for a number outside 0..max. A huge one is described, not printed: str() of it may itself fail. */
static int refuse_number(PyObject *number, const char *name, uint64_t max)
{
    PyObject *bits = PyObject_CallMethod(number, "bit_length", NULL);
    if (!bits)
        return -1;
    if (PyLong_AsLong(bits) <= 64)
        PyErr_Format(PyExc_ValueError, "%s must be from 0 to %llu, not %S", name, (unsigned long long)max, number);
    else
        PyErr_Format(PyExc_ValueError, "%s must be from 0 to %llu, not an integer of %S bits", name,
                     (unsigned long long)max, bits);
    Py_DECREF(bits);
    return -1;
}

/* An integer, or what stands for one by __index__, from 0 to max. name is for the error. */
static int as_uint64(PyObject *object, const char *name, uint64_t max, uint64_t *out)
{
    PyObject *number = PyNumber_Index(object);
    if (!number) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError, "%s must be an integer, not '%.100s'", name, Py_TYPE(object)->tp_name);
        return -1;
    }
    *out = PyLong_AsUnsignedLongLong(number);
    int failed = 0;
    if (PyErr_Occurred()) {
        PyErr_Clear(); /* OverflowError: negative, or over 64 bits */
        failed = refuse_number(number, name, max);
    } else if (*out > max) {
        failed = refuse_number(number, name, max);
    }
    Py_DECREF(number);
    return failed;
}

static int check_count(const char *function, Py_ssize_t given, Py_ssize_t least, Py_ssize_t most)
{
    if (least <= given && given <= most)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s() takes from %zd to %zd arguments, %zd given", function, least, most, given);
    return -1;
}

/* A view of contiguous bytes without a copy. Exporters disagree on the error for data that is not contiguous (numpy
 * raises ValueError), so it is told from other refusals by asking again for a view with strides. */
static int get_bytes(PyObject *data, Py_buffer *view)
{
    if (!PyObject_CheckBuffer(data)) {
        PyErr_Format(PyExc_TypeError, "data must be a bytes-like object, not '%.100s'", Py_TYPE(data)->tp_name);
        return -1;
    }
    if (PyObject_GetBuffer(data, view, PyBUF_SIMPLE) == 0)
        return 0;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (PyObject_GetBuffer(data, view, PyBUF_FULL_RO) != 0) {
        PyErr_Restore(type, value, traceback);
        return -1;
    }
    PyBuffer_Release(view);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    PyErr_SetString(PyExc_BufferError,
                    "data must be C-contiguous: make it so first, "
                    "e.g. with numpy.ascontiguousarray(data) or bytes(data)");
    return -1;
}

static int parse_op(PyObject *name, enum pfs_op *op)
{
    for (int i = 0; i < PFS_OPS; i++) {
        if (PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, pfs_op_name((enum pfs_op)i)) == 0) {
            *op = (enum pfs_op)i;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "%R is not an op", name);
    return -1;
}

/* The counts are the only values that can outgrow 64 bits, and less than 2^64 was added: a wrapped sum is smaller. */
static int check_sum(uint64_t before, uint64_t after)
{
    if (after >= before)
        return 0;
    PyErr_SetString(PyExc_OverflowError, "the value does not fit in 64 bits");
    return -1;
}

/* ---- Kernels ---- */

static PyObject *run_op(Kernels *self, enum pfs_op op, PyObject *data, PyObject *imm_object, PyObject *value_object)
{
    uint64_t imm = 0, value = op == PFS_FNV64 ? PFS_FNV64_OFFSET : 0;
    if (imm_object && as_uint64(imm_object, "imm", UINT8_MAX, &imm) < 0)
        return NULL;
    if (value_object && as_uint64(value_object, "value", MAX_VALUE[op], &value) < 0)
        return NULL;
    Py_buffer view;
    if (get_bytes(data, &view) < 0)
        return NULL;
    pfs_kernel run = self->chosen[op]->run;
    uint64_t result;
    if (view.len < GIL_BYTES) {
        result = run(value, view.buf, (size_t)view.len, (uint8_t)imm);
    } else {
        Py_BEGIN_ALLOW_THREADS
        result = run(value, view.buf, (size_t)view.len, (uint8_t)imm);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&view);
    if ((op == PFS_COUNTEQ || op == PFS_ADD) && check_sum(value, result) < 0)
        return NULL;
    return PyLong_FromUnsignedLongLong(result);
}

static PyObject *run_with_imm(PyObject *self, enum pfs_op op, PyObject *const *args, Py_ssize_t count)
{
    if (check_count(pfs_op_name(op), count, 2, 3) < 0)
        return NULL;
    return run_op((Kernels *)self, op, args[0], args[1], count > 2 ? args[2] : NULL);
}

static PyObject *run_without_imm(PyObject *self, enum pfs_op op, PyObject *const *args, Py_ssize_t count)
{
    if (check_count(pfs_op_name(op), count, 1, 2) < 0)
        return NULL;
    return run_op((Kernels *)self, op, args[0], NULL, count > 1 ? args[1] : NULL);
}

static PyObject *kernels_counteq(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    return run_with_imm(self, PFS_COUNTEQ, args, count);
}

static PyObject *kernels_crc32c(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    return run_without_imm(self, PFS_CRC32C, args, count);
}

static PyObject *kernels_fnv64(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    return run_without_imm(self, PFS_FNV64, args, count);
}

static PyObject *kernels_xor(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    return run_with_imm(self, PFS_XOR, args, count);
}

static PyObject *kernels_add(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    return run_with_imm(self, PFS_ADD, args, count);
}

static PyObject *kernels_crc32c_combine(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    uint64_t a, b, len_b;
    if (check_count("crc32c_combine", count, 3, 3) < 0 || as_uint64(args[0], "a", UINT32_MAX, &a) < 0 ||
        as_uint64(args[1], "b", UINT32_MAX, &b) < 0 || as_uint64(args[2], "len_b", INT64_MAX, &len_b) < 0)
        return NULL;
    return PyLong_FromUnsignedLong(((Kernels *)self)->combine((uint32_t)a, (uint32_t)b, len_b));
}

static PyObject *kernels_plan(PyObject *self, PyObject *ops)
{
    State *state = PyType_GetModuleState(Py_TYPE(self));
    if (!state)
        return NULL;
    if (!PyTuple_Check(ops)) {
        PyErr_Format(PyExc_TypeError, "ops must be a tuple, not '%.100s'", Py_TYPE(ops)->tp_name);
        return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(ops);
    Plan *plan = (Plan *)state->plan_type->tp_alloc(state->plan_type, count);
    if (!plan)
        return NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name, *imm_object, *op = PyTuple_GET_ITEM(ops, i);
        uint64_t imm;
        if (!PyTuple_Check(op)) {
            PyErr_Format(PyExc_TypeError, "an op must be a tuple, not '%.100s'", Py_TYPE(op)->tp_name);
            goto failed;
        }
        if (!PyArg_ParseTuple(op, "OO", &name, &imm_object) || parse_op(name, &plan->steps[i].op) < 0 ||
            as_uint64(imm_object, "imm", UINT8_MAX, &imm) < 0)
            goto failed;
        plan->steps[i].imm = (uint8_t)imm;
        plan->steps[i].run = ((Kernels *)self)->chosen[plan->steps[i].op]->run;
    }
    return (PyObject *)plan;
failed:
    Py_DECREF(plan);
    return NULL;
}

/* An op as callers write it, a name or a pair of exact types that is right in all: then 1, else 0 and no error, because
 * __init__.py, which is asked next, knows more forms and what to say of a wrong one. */
static int parse_plain(PyObject *spec, enum pfs_op *op, uint8_t *imm)
{
    PyObject *name = spec, *given = Py_None;
    if (PyTuple_CheckExact(spec) && PyTuple_GET_SIZE(spec) == 2) {
        name = PyTuple_GET_ITEM(spec, 0);
        given = PyTuple_GET_ITEM(spec, 1);
    }
    if (!PyUnicode_CheckExact(name))
        return 0;
    int i = 0;
    while (i < PFS_OPS && PyUnicode_CompareWithASCIIString(name, pfs_op_name((enum pfs_op)i)))
        i++;
    if (i == PFS_OPS || (given == Py_None) != (i == PFS_CRC32C || i == PFS_FNV64))
        return 0;
    long value = 0;
    if (given != Py_None) {
        int overflow = 0;
        if (!PyLong_CheckExact(given))
            return 0;
        value = PyLong_AsLongAndOverflow(given, &overflow);
        if (overflow || value < 0 || value > UINT8_MAX)
            return 0;
    }
    *op = (enum pfs_op)i;
    *imm = (uint8_t)value;
    return 1;
}

static PyObject *kernels_plan_plain(PyObject *self, PyObject *ops)
{
    State *state = PyType_GetModuleState(Py_TYPE(self));
    if (!state)
        return NULL;
    if (!PyTuple_Check(ops)) {
        PyErr_Format(PyExc_TypeError, "ops must be a tuple, not '%.100s'", Py_TYPE(ops)->tp_name);
        return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(ops);
    Plan *plan = (Plan *)state->plan_type->tp_alloc(state->plan_type, count);
    for (Py_ssize_t i = 0; plan && i < count; i++) {
        if (!parse_plain(PyTuple_GET_ITEM(ops, i), &plan->steps[i].op, &plan->steps[i].imm)) {
            Py_DECREF(plan);
            Py_RETURN_NONE;
        }
        plan->steps[i].run = ((Kernels *)self)->chosen[plan->steps[i].op]->run;
    }
    return (PyObject *)plan;
}

static PyObject *kernels_active(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *active = PyDict_New();
    for (int op = 0; active && op < PFS_OPS; op++) {
        PyObject *name = PyUnicode_FromString(((Kernels *)self)->chosen[op]->name);
        if (!name || PyDict_SetItemString(active, pfs_op_name((enum pfs_op)op), name) < 0)
            Py_CLEAR(active);
        Py_XDECREF(name);
    }
    return active;
}

static PyObject *kernels_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    State *state = PyType_GetModuleState(type);
    const char *name = NULL;
    if (!state || !PyArg_ParseTuple(args, "|z:Kernels", &name))
        return NULL;
    if (kwargs && PyDict_GET_SIZE(kwargs)) {
        PyErr_SetString(PyExc_TypeError, "Kernels() takes no keyword arguments");
        return NULL;
    }
    Kernels *self = (Kernels *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    int found = !name;
    for (int op = 0; op < PFS_OPS; op++) {
        self->chosen[op] = pfs_choose((enum pfs_op)op, state->features, name);
        found |= name && self->chosen[op] && !strcmp(self->chosen[op]->name, name);
    }
    self->combine = pfs_choose_combine(state->features, name);
    if (found)
        return (PyObject *)self;
    PyErr_Format(PyExc_ValueError, "no op has an implementation '%.100s' here", name);
    Py_DECREF(self);
    return NULL;
}

static int visit_type(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static void dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    type->tp_free(self);
    Py_DECREF(type);
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef KERNELS_METHODS[] = {
    {"counteq", FAST(kernels_counteq), METH_FASTCALL,
     "counteq($self, data, imm, value=0, /)\n--\n\nReturn value plus the number of bytes equal to imm."},
    {"crc32c", FAST(kernels_crc32c), METH_FASTCALL,
     "crc32c($self, data, value=0, /)\n--\n\nReturn the CRC-32C (RFC 3720) of data after bytes whose CRC is value."},
    {"fnv64", FAST(kernels_fnv64), METH_FASTCALL,
     "fnv64($self, data, value=14695981039346656037, /)\n--\n\nReturn the FNV-1a 64 of data, going on from value."},
    {"xor", FAST(kernels_xor), METH_FASTCALL,
     "xor($self, data, imm, value=0, /)\n--\n\nReturn value XOR each byte XOR imm, 0..255."},
    {"add", FAST(kernels_add), METH_FASTCALL,
     "add($self, data, imm, value=0, /)\n--\n\nReturn value plus the sum of (byte + imm) mod 256."},
    {"crc32c_combine", FAST(kernels_crc32c_combine), METH_FASTCALL,
     "crc32c_combine($self, a, b, len_b, /)\n--\n\nReturn the CRC-32C of two ranges from theirs; len_b in bytes."},
    {"plan", kernels_plan, METH_O,
     "plan($self, ops, /)\n--\n\nReturn a Plan that runs ops, a tuple of (name, imm), in one pass."},
    {"plan_plain", kernels_plan_plain, METH_O,
     "plan_plain($self, ops, /)\n--\n\nReturn a Plan of names and (name, imm) pairs, or None for other forms."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef KERNELS_GETTERS[] = {
    {"active", kernels_active, NULL, "A new dict of each op's name to the name of its implementation here.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot KERNELS_SLOTS[] = {
    {Py_tp_doc, "Kernels(implementation=None, /)\n--\n\nEach op's best implementation, or the one named or next below it."},
    {Py_tp_new, kernels_new},
    {Py_tp_dealloc, dealloc},
    {Py_tp_traverse, visit_type},
    {Py_tp_methods, KERNELS_METHODS},
    {Py_tp_getset, KERNELS_GETTERS},
    {0, NULL},
};

static PyType_Spec KERNELS_SPEC = {
    .name = "packetfs_compute.kernels._native.Kernels",
    .basicsize = sizeof(Kernels),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = KERNELS_SLOTS,
};

/* ---- Plan ---- */

/* Reads values into steps; a tuple, so that no other thread can change its length meanwhile. */
static int load_values(Plan *self, PyObject *values, struct pfs_step *steps)
{
    Py_ssize_t count = Py_SIZE(self);
    if (PyTuple_GET_SIZE(values) != count) {
        PyErr_Format(PyExc_ValueError, "values must have one entry for each op: %zd, not %zd", count,
                     PyTuple_GET_SIZE(values));
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        char name[40];
        PyOS_snprintf(name, sizeof name, "values[%lld]", (long long)i);
        steps[i].run = self->steps[i].run;
        steps[i].imm = self->steps[i].imm;
        if (as_uint64(PyTuple_GET_ITEM(values, i), name, MAX_VALUE[self->steps[i].op], &steps[i].value) < 0)
            return -1;
    }
    return 0;
}

static int run_steps(struct pfs_step *steps, Py_ssize_t count, PyObject *data)
{
    Py_buffer view;
    if (get_bytes(data, &view) < 0)
        return -1;
    if (view.len < GIL_BYTES) {
        pfs_fused(steps, (size_t)count, view.buf, (size_t)view.len);
    } else {
        Py_BEGIN_ALLOW_THREADS
        pfs_fused(steps, (size_t)count, view.buf, (size_t)view.len);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&view);
    return 0;
}

static PyObject *new_values(Plan *self, PyObject *values, const struct pfs_step *steps)
{
    PyObject *results = PyList_New(Py_SIZE(self));
    for (Py_ssize_t i = 0; results && i < Py_SIZE(self); i++) {
        enum pfs_op op = self->steps[i].op;
        uint64_t before = 0;
        PyObject *result = NULL;
        /* Read again rather than kept: it was checked before, and so cannot fail now. */
        if ((op != PFS_COUNTEQ && op != PFS_ADD) ||
            (as_uint64(PyTuple_GET_ITEM(values, i), "values", UINT64_MAX, &before) == 0 &&
             check_sum(before, steps[i].value) == 0))
            result = PyLong_FromUnsignedLongLong(steps[i].value);
        if (!result)
            Py_CLEAR(results);
        else
            PyList_SET_ITEM(results, i, result);
    }
    return results;
}

static PyObject *plan_run(PyObject *object, PyObject *const *args, Py_ssize_t given)
{
    Plan *self = (Plan *)object;
    if (check_count("run", given, 2, 2) < 0)
        return NULL;
    if (PyUnicode_Check(args[1]) || !PySequence_Check(args[1])) {
        PyErr_Format(PyExc_TypeError, "values must be a sequence of integers, not '%.100s'", Py_TYPE(args[1])->tp_name);
        return NULL;
    }
    Py_ssize_t count = Py_SIZE(self);
    struct pfs_step on_stack[STACK_STEPS], *steps = on_stack;
    PyObject *results = NULL, *values = PySequence_Tuple(args[1]);
    if (!values)
        return NULL;
    if (count > STACK_STEPS && !(steps = PyMem_New(struct pfs_step, count)))
        PyErr_NoMemory();
    else if (load_values(self, values, steps) == 0 && run_steps(steps, count, args[0]) == 0)
        results = new_values(self, values, steps);
    if (steps != on_stack)
        PyMem_Free(steps);
    Py_DECREF(values);
    return results;
}

static PyMethodDef PLAN_METHODS[] = {
    {"run", FAST(plan_run), METH_FASTCALL,
     "run($self, data, values, /)\n--\n\nReturn the new values, in the order of the ops."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot PLAN_SLOTS[] = {
    {Py_tp_doc, "Several ops made ready to run over chunk after chunk; made by Kernels.plan()."},
    {Py_tp_dealloc, dealloc},
    {Py_tp_traverse, visit_type},
    {Py_tp_methods, PLAN_METHODS},
    {0, NULL},
};

static PyType_Spec PLAN_SPEC = {
    .name = "packetfs_compute.kernels._native.Plan",
    .basicsize = offsetof(Plan, steps),
    .itemsize = sizeof(((Plan *)NULL)->steps[0]),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = PLAN_SLOTS,
};

/* ---- the module ---- */

static PyObject *names_of(enum pfs_op op, uint32_t features)
{
    size_t count;
    const struct pfs_implementation *known = pfs_implementations(op, &count);
    PyObject *names = PyList_New(0), *frozen = NULL;
    for (size_t i = 0; names && i < count; i++) {
        if (known[i].requires & ~features)
            continue;
        PyObject *name = PyUnicode_FromString(known[i].name);
        if (!name || PyList_Append(names, name) < 0)
            Py_CLEAR(names);
        Py_XDECREF(name);
    }
    if (names)
        frozen = PyList_AsTuple(names);
    Py_XDECREF(names);
    return frozen;
}

static PyObject *implementations(PyObject *module, PyObject *Py_UNUSED(none))
{
    State *state = PyModule_GetState(module);
    PyObject *result = PyDict_New();
    for (int op = 0; result && op < PFS_OPS; op++) {
        PyObject *names = names_of((enum pfs_op)op, state->features);
        if (!names || PyDict_SetItemString(result, pfs_op_name((enum pfs_op)op), names) < 0)
            Py_CLEAR(result);
        Py_XDECREF(names);
    }
    return result;
}

static PyMethodDef MODULE_METHODS[] = {
    {"implementations", implementations, METH_NOARGS,
     "implementations($module, /)\n--\n\nReturn a dict of each op's name to what this machine can run, best first."},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module)
{
    State *state = PyModule_GetState(module);
    state->features = pfs_cpu_features();
    state->kernels_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &KERNELS_SPEC, NULL);
    state->plan_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &PLAN_SPEC, NULL);
    if (!state->kernels_type || !state->plan_type)
        return -1;
    return PyModule_AddType(module, state->kernels_type) < 0 || PyModule_AddType(module, state->plan_type) < 0 ? -1 : 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    Py_VISIT(state->kernels_type);
    Py_VISIT(state->plan_type);
    return 0;
}

static int module_clear(PyObject *module)
{
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->kernels_type);
    Py_CLEAR(state->plan_type);
    return 0;
}

static PyModuleDef_Slot MODULE_SLOTS[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030d0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "packetfs_compute.kernels._native",
    .m_doc = "The byte kernels in C: what packetfs_compute.kernels runs on where it was built.",
    .m_size = sizeof(State),
    .m_methods = MODULE_METHODS,
    .m_slots = MODULE_SLOTS,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&MODULE);
}
