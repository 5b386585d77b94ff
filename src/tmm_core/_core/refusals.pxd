"""Refusals in words: one call of a function of Python's, where an f-string is half a kilobyte of code."""

from cpython.object cimport PyObject


cdef extern from "Python.h":
    """
    #ifdef __GNUC__
    /* Cython's own: every way out by an exception calls it, so the compiler makes all those ways small. */
    static void __Pyx_AddTraceback(const char *, int, int, const char *) __attribute__((cold));
    #endif
    """
    ctypedef struct Type "PyTypeObject":
        const char* tp_name
    # Always raises. Numbers are %lld and of type `long long`, C strings %s, objects %S.
    void* refuse "PyErr_Format"(object kind, const char* words, ...) except NULL
    Type* type_of_object "Py_TYPE"(object given) noexcept


cdef inline const char* type_name(given) noexcept:
    return type_of_object(given).tp_name
