/* tmm-core for C and C++: decide on Service Requests without the GIL.
 *
 *     PyObject *lane = PyObject_CallMethod(mechanism, "lane", NULL);     one a thread, with the GIL
 *     void *handle = tmm_lane(lane);
 *     const tmm_api *tmm = tmm_import();                                 NULL with an exception set on failure
 *     ...
 *     int decision = tmm->admit(handle, user, srv);                      without the GIL
 *
 * `user` and `srv` are numbers from Mechanism.user and Mechanism.srv; one out of range is decided as the unknown
 * one. A lane is used by one thread at a time and is valid as long as the Python object is alive and not closed.
 * The folder of this file is tmm_core.get_include().
 */
#ifndef TMM_CORE_H
#define TMM_CORE_H

#include <Python.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TMM_API_VERSION 1

enum tmm_decision { TMM_THROTTLED = 0, TMM_SPARE_CAPACITY = 1, TMM_WITHIN_ALLOCATION = 2, TMM_PRIORITY = 3 };

/* Grows at its end only; `nbytes` says how much of it there is. */
typedef struct {
    uint32_t version;
    uint32_t nbytes;
    /* Decide now, by the monotonic clock; an enum tmm_decision. */
    int (*admit)(void *lane, uint32_t user, uint32_t srv);
    /* The same at `now`, nanoseconds on a monotonic clock. */
    int (*admit_at)(void *lane, uint32_t user, uint32_t srv, int64_t now);
    /* Take the User's next retry slot: nanoseconds from `now`, rounded up. */
    int64_t (*retry_after)(void *lane, uint32_t user, int64_t now);
} tmm_api;

/* The functions; NULL with an ImportError if the installed tmm_core has another interface. Needs the GIL. */
static inline const tmm_api *tmm_import(void)
{
    const tmm_api *api;
    PyObject *module = PyImport_ImportModule("tmm_core._core.engine"), *capsule;
    if (module == NULL) return NULL;
    capsule = PyObject_GetAttrString(module, "C_API");
    Py_DECREF(module);
    if (capsule == NULL) return NULL;
    api = (const tmm_api *)PyCapsule_GetPointer(capsule, "tmm_core._core.engine.C_API");
    Py_DECREF(capsule); /* the module keeps it, and sys.modules the module */
    if (api == NULL) return NULL;
    if (api->version != TMM_API_VERSION || api->nbytes < sizeof(tmm_api)) {
        PyErr_Format(PyExc_ImportError, "tmm_core has C interface %u of %u bytes, expected %d of at least %zu",
                     (unsigned)api->version, (unsigned)api->nbytes, TMM_API_VERSION, sizeof(tmm_api));
        return NULL;
    }
    return api;
}

/* The handle of a tmm_core Lane; NULL with an exception set if it is none. Needs the GIL. */
static inline void *tmm_lane(PyObject *lane)
{
    PyObject *capsule = PyObject_GetAttrString(lane, "pointer");
    void *handle;
    if (capsule == NULL) return NULL;
    handle = PyCapsule_GetPointer(capsule, "tmm_core.lane");
    Py_DECREF(capsule); /* it owns nothing: the lane does */
    return handle;
}

#ifdef __cplusplus
}
#endif

#endif
