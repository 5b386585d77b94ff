"""What the engine uses of NumPy's interface for C: `cimport numpy` makes every module look up twenty more types."""

from libc.stdint cimport int64_t


cdef extern from "numpy/arrayobject.h":
    ctypedef class numpy.ndarray [object PyArrayObject, check_size ignore]:
        pass
    ctypedef int64_t npy_intp
    enum:
        UINT8 "NPY_UINT8"
        UINT16 "NPY_UINT16"
        UINT32 "NPY_UINT32"
        INT64 "NPY_INT64"
        READABLE "NPY_ARRAY_CARRAY_RO"  # contiguous, aligned, of this machine's byte order
    int import_array "_import_array"() except -1
    bint is_array "PyArray_Check"(object array) noexcept
    bint is_contiguous "PyArray_IS_C_CONTIGUOUS"(ndarray array) noexcept
    bint is_aligned "PyArray_ISALIGNED"(ndarray array) noexcept
    bint is_native "PyArray_ISNOTSWAPPED"(ndarray array) noexcept
    bint is_writable "PyArray_ISWRITEABLE"(ndarray array) noexcept
    int type_of "PyArray_TYPE"(ndarray array) noexcept
    int dimensions_of "PyArray_NDIM"(ndarray array) noexcept
    npy_intp* shape_of "PyArray_DIMS"(ndarray array) noexcept
    void* data_of "PyArray_DATA"(ndarray array) noexcept
    ndarray empty "PyArray_EMPTY"(int dimensions, npy_intp* shape, int number, int fortran)
    ndarray zeros "PyArray_ZEROS"(int dimensions, npy_intp* shape, int number, int fortran)
    ndarray as_array "PyArray_FROM_OTF"(object given, int number, int needs)
