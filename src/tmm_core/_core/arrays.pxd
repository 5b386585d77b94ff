"""What a batch must look like: the checks of its arrays, before anything is decided."""

cimport numpy as cnp
from libc.stdint cimport int64_t, uint16_t, uint32_t
from .workspace cimport ANY_SRV, Batch


cdef inline int64_t check_arrays(users, srvs, out) except -1:
    """Check the arrays of a batch; returns their length."""
    check_array(users, "users", cnp.NPY_UINT32, "uint32")
    check_array(srvs, "srvs", cnp.NPY_UINT16, "uint16")
    check_array(out, "out", cnp.NPY_UINT8, "uint8")
    cdef int64_t n = cnp.PyArray_DIM(users, 0)
    if cnp.PyArray_DIM(srvs, 0) != n or cnp.PyArray_DIM(out, 0) != n:
        raise ValueError(f"users, srvs and out must be of one length, found {n}, {cnp.PyArray_DIM(srvs, 0)} and "
                         f"{cnp.PyArray_DIM(out, 0)}")
    if not cnp.PyArray_ISWRITEABLE(out):
        raise ValueError("out must be writable")
    cdef size_t begin = <size_t>cnp.PyArray_DATA(out), first = <size_t>cnp.PyArray_DATA(users)
    cdef size_t second = <size_t>cnp.PyArray_DATA(srvs)
    if n and ((begin < first + 4 * n and first < begin + n) or (begin < second + 2 * n and second < begin + n)):
        raise ValueError("out must not overlap users or srvs")
    return n


cdef inline int check_array(array, str name, int number, str dtype) except -1:
    if not cnp.PyArray_Check(array):
        raise TypeError(f"{name} must be an ndarray of {dtype}, found {type(array).__name__}")
    if cnp.PyArray_NDIM(array) != 1:
        raise ValueError(f"{name} must have one dimension, found {cnp.PyArray_NDIM(array)}")
    if cnp.PyArray_TYPE(array) != number or not cnp.PyArray_ISNOTSWAPPED(array):
        raise TypeError(f"{name} must be of dtype {dtype}, found {array.dtype}")
    if not cnp.PyArray_IS_C_CONTIGUOUS(array) or not cnp.PyArray_ISALIGNED(array):
        raise ValueError(f"{name} must be contiguous and aligned: use numpy.ascontiguousarray")
    return 0


cdef inline int64_t first_beyond(Batch* batch) noexcept nogil:
    """Index of the first request with a slot that is not below the limits; -1 if there is none."""
    cdef uint32_t users = batch.user_limit, srvs = batch.srv_limit
    cdef uint32_t top = 0
    cdef uint16_t number = 0, last = <uint16_t>(min(srvs, <uint32_t>ANY_SRV) - 1)
    cdef int64_t i
    # A sign bit tells of an index above the last one: a comparison of unsigned numbers is slow on old vector units.
    for i in range(batch.n):
        top |= batch.users[i] | (users - 1 - batch.users[i])
    for i in range(batch.n):
        number |= batch.srvs[i] | (last - batch.srvs[i])
    if (users and not top >> 31) and (srvs and not number >> 15):
        return -1
    for i in range(batch.n):
        if batch.users[i] >= users or batch.srvs[i] >= srvs:
            return i
    return -1
