"""Slots and times as Python hands them over: whole numbers, and a clear word about all else."""

from cpython.number cimport PyIndex_Check, PyNumber_Index
from libc.stdint cimport int64_t, uint32_t
from .atomic cimport likely, seldom
from .clock cimport clock_exact
from .refusals cimport refuse, type_name


cdef extern from "atomics.h":
    """
    /* A small int of Python without asking what else it might be; false: ask. Where an int keeps its digits is not
       Python's promise before 3.12: there Cython's conversion reads it in the same way. */
    static inline int tmm_small_number(PyObject *given, uint32_t *number)
    {
        if (TMM_UNLIKELY(!PyLong_CheckExact(given))) return 0;
    #if PY_VERSION_HEX >= 0x030C0000
        if (TMM_UNLIKELY(!PyUnstable_Long_IsCompact((PyLongObject *)given))) return 0;
        Py_ssize_t value = PyUnstable_Long_CompactValue((PyLongObject *)given);
        if (value < 0) return 0;
        *number = (uint32_t)value;
    #else
        if (TMM_UNLIKELY((size_t)Py_SIZE(given) > 1)) return 0;
        *number = TMM_LIKELY(Py_SIZE(given)) ? (uint32_t)((PyLongObject *)given)->ob_digit[0] : 0;
    #endif
        return 1;
    }
    """
    bint small_number "tmm_small_number"(object given, uint32_t* number) noexcept


cdef inline uint32_t slot_of(object given, bint of_user) except? 0xFFFFFFFF:
    """Return a slot that may exist; what is no whole number is a TypeError, what no slot can be an OverflowError."""
    cdef uint32_t number
    if likely(small_number(given, &number)):
        return number
    return slot_of_other(given, of_user)


cdef inline uint32_t slot_of_other(object given, bint of_user) except? 0xFFFFFFFF:
    cdef const char* what = b"user" if of_user else b"srv"
    cdef const char* where = b"Mechanism.user" if of_user else b"Mechanism.srv"
    seldom()
    if not PyIndex_Check(given):
        refuse(TypeError, "%s must be an int (see %s), found %s", what, where, type_name(given))
    cdef object number = PyNumber_Index(given)  # of NumPy, or of a subclass
    if number < 0 or number >= 0xFFFFFFFF:
        refuse(OverflowError, "%s must be from 0 to 4294967294 (see %s), found %s", what, where,
               b"a negative number" if number < 0 else b"a larger number")
    return number


cdef inline int64_t ns_of(object given) except? -1:
    """Return a time in nanoseconds; one in seconds would be cut short to none at all, and is a TypeError."""
    if not PyIndex_Check(given):
        refuse(TypeError, "now must be an int, nanoseconds as from time.monotonic_ns(), found %s", type_name(given))
    return PyNumber_Index(given)


cdef inline int64_t ns_or_clock(object given) except? -1:
    return clock_exact() if given is None else ns_of(given)
