"""What a batch must look like: the checks of its arrays, before anything is decided."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint16_t, uint32_t
from .ndarray cimport (
    UINT8, UINT16, UINT32, data_of, dimensions_of, is_aligned, is_array, is_contiguous, is_native, is_writable, ndarray,
    shape_of, type_of,
)
from .refusals cimport refuse, type_name
from .workspace cimport ANY_SRV, Batch


cdef inline int64_t check_arrays(users, srvs, out) except -1:
    """Check the arrays of a batch; returns their length."""
    check_array(users, "users", UINT32, "uint32")
    check_array(srvs, "srvs", UINT16, "uint16")
    check_array(out, "out", UINT8, "uint8")
    cdef int64_t n = length_of(users)
    if length_of(srvs) != n or length_of(out) != n:
        refuse(ValueError, "users, srvs and out must be of one length, found %lld, %lld and %lld",
               <long long>n, <long long>length_of(srvs), <long long>length_of(out))
    if not is_writable(<ndarray>out):
        raise ValueError("out must be writable")
    cdef size_t begin = <size_t>data_of(<ndarray>out), first = <size_t>data_of(<ndarray>users)
    cdef size_t second = <size_t>data_of(<ndarray>srvs)
    if n and ((begin < first + 4 * n and first < begin + n) or (begin < second + 2 * n and second < begin + n)):
        raise ValueError("out must not overlap users or srvs")
    return n


cdef inline int64_t length_of(array) noexcept:
    """Length of what has been checked to be an array; the type is not asked for again."""
    return shape_of(<ndarray>array)[0]


cdef inline int check_array(array, const char* name, int number, const char* dtype) except -1:
    if not is_array(array):
        refuse(TypeError, "%s must be an ndarray of %s, found %s", name, dtype, type_name(array))
    if dimensions_of(<ndarray>array) != 1:
        refuse(ValueError, "%s must have one dimension, found %d", name, dimensions_of(<ndarray>array))
    if type_of(<ndarray>array) != number or not is_native(<ndarray>array):
        found = array.dtype
        refuse(TypeError, "%s must be of dtype %s, found %S", name, dtype, <PyObject*>found)
    if not is_contiguous(<ndarray>array) or not is_aligned(<ndarray>array):
        refuse(ValueError, "%s must be contiguous and aligned: use numpy.ascontiguousarray", name)
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
