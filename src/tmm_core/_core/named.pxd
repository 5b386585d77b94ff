"""Numbers by name, for Python: a table and one loop, where a dictionary written out is code for every entry."""

from cpython.unicode cimport PyUnicode_FromString
from libc.stdint cimport int64_t
from .atomic cimport seldom


cdef struct Named:
    const char* name
    int64_t number


cdef inline dict as_dict(Named* first, int n):
    cdef int index
    seldom()
    return {PyUnicode_FromString(first[index].name): first[index].number for index in range(n)}
