"""What a batch must look like: the checks of its arrays, before anything is decided."""

cimport numpy as cnp
from libc.stdint cimport int64_t, uint16_t, uint32_t
from .workspace cimport ANY_SRV, Batch


cdef inline int64_t check_arrays(users, srvs, out) except -1:
    """Check the arrays of a batch; returns their length."""
    check_array(users, "users", cnp.NPY_UINT32, "uint32")
    check_array(srvs, "srvs", cnp.NPY_UINT16, "uint16")
    check_array(out, "out", cnp.NPY_UINT8, "uint8")
    cdef int64_t n = length_of(users)
    if length_of(srvs) != n or length_of(out) != n:
        raise ValueError(f"users, srvs and out must be of one length, found {n}, {length_of(srvs)} and "
                         f"{length_of(out)}")
    if not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out):
        raise ValueError("out must be writable")
    cdef size_t begin = <size_t>data_of(out), first = <size_t>data_of(users), second = <size_t>data_of(srvs)
    if n and ((begin < first + 4 * n and first < begin + n) or (begin < second + 2 * n and second < begin + n)):
        raise ValueError("out must not overlap users or srvs")
    return n


cdef inline int64_t length_of(array) noexcept:
    """Length of what has been checked to be an array; the type is not asked for again."""
    return cnp.PyArray_DIM(<cnp.ndarray>array, 0)


cdef inline void* data_of(array) noexcept:
    return cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline int check_array(array, str name, int number, str dtype) except -1:
    if not cnp.PyArray_Check(array):
        raise TypeError(f"{name} must be an ndarray of {dtype}, found {type(array).__name__}")
    if cnp.PyArray_NDIM(<cnp.ndarray>array) != 1:
        raise ValueError(f"{name} must have one dimension, found {array.ndim}")
    if cnp.PyArray_TYPE(<cnp.ndarray>array) != number or not cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray>array):
        raise TypeError(f"{name} must be of dtype {dtype}, found {array.dtype}")
    if not cnp.PyArray_IS_C_CONTIGUOUS(<cnp.ndarray>array) or not cnp.PyArray_ISALIGNED(<cnp.ndarray>array):
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
