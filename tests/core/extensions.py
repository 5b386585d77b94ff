"""Extensions built as another project would build them, against the doors for Cython and for C."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import tmm_core

FROM_CYTHON = """
# cython: language_level=3
from libc.stdint cimport int64_t, uint32_t
from tmm_core cimport PRIORITY, THROTTLED, Lane

def storm(Lane lane, uint32_t user, uint32_t srv, int64_t now, int n, int64_t step=0):
    cdef int i, admitted = 0
    with nogil:
        for i in range(n):
            admitted += lane.admit_at(user, srv, now + i * step) != THROTTLED
    return admitted

def one(Lane lane, uint32_t user, uint32_t srv):
    return lane.admit(user, srv)

assert PRIORITY == 3
"""

FROM_C = """
#include "tmm_core.h"

static const tmm_api *tmm;

static PyObject *storm(PyObject *self, PyObject *args)
{
    PyObject *lane;
    unsigned user, srv;
    long long now;
    int n, admitted = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "OIILi", &lane, &user, &srv, &now, &n)) return NULL;
    void *handle = tmm_lane(lane);
    if (handle == NULL) return NULL;
    Py_BEGIN_ALLOW_THREADS
    for (int i = 0; i < n; i++) admitted += tmm->admit_at(handle, user, srv, now) != TMM_THROTTLED;
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(admitted);
}

static PyObject *retry(PyObject *self, PyObject *args)
{
    PyObject *lane;
    unsigned user;
    long long now;
    (void)self;
    if (!PyArg_ParseTuple(args, "OIL", &lane, &user, &now)) return NULL;
    void *handle = tmm_lane(lane);
    return handle == NULL ? NULL : PyLong_FromLongLong(tmm->retry_after(handle, user, now));
}

static PyMethodDef methods[] = {{"storm", storm, METH_VARARGS, ""}, {"retry", retry, METH_VARARGS, ""}, {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "from_c", 0, -1, methods};

PyMODINIT_FUNC PyInit_from_c(void)
{
    if ((tmm = tmm_import()) == NULL) return NULL;
    return PyModule_Create(&module);
}
"""

SETUP = """
import numpy
from setuptools import Extension, setup
from Cython.Build import cythonize
import tmm_core

include = [tmm_core.get_include(), numpy.get_include()]
setup(
    name="doors",
    ext_modules=cythonize([Extension("from_cython", ["from_cython.pyx"], include_dirs=include)])
    + [Extension("from_c", ["from_c.c"], include_dirs=include)],
)
"""


def build_extensions(folder: Path) -> None:
    """Build `from_cython` and `from_c` in a folder of their own, against the tmm_core that is imported here."""
    (folder / "from_cython.pyx").write_text(textwrap.dedent(FROM_CYTHON), encoding="utf-8")
    (folder / "from_c.c").write_text(FROM_C, encoding="utf-8")
    (folder / "setup.py").write_text(SETUP, encoding="utf-8")
    built = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(Path(tmm_core.__file__).parents[1])},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
