"""The doors for Cython and for C: an extension built against them decides without the GIL."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import tmm_core
from tmm_core import Config, Decision, Mechanism

pytest.importorskip("Cython", reason="building an extension against the doors needs Cython and a compiler")

FROM_CYTHON = """
# cython: language_level=3
from libc.stdint cimport int64_t, uint32_t
from tmm_core cimport PRIORITY, THROTTLED, Lane

def storm(Lane lane, uint32_t user, uint32_t srv, int64_t now, int n):
    cdef int i, admitted = 0
    with nogil:
        for i in range(n):
            admitted += lane.admit_at(user, srv, now) != THROTTLED
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


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both extensions in a folder of their own, as another project would."""
    folder = tmp_path_factory.mktemp("doors")
    (folder / "from_cython.pyx").write_text(textwrap.dedent(FROM_CYTHON), encoding="utf-8")
    (folder / "from_c.c").write_text(FROM_C, encoding="utf-8")
    (folder / "setup.py").write_text(SETUP, encoding="utf-8")
    built = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(Path(tmm_core.__file__).parents[1])},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def mechanism() -> Mechanism:
    """Ten units per second with a burst of one second: eleven requests from rest. Active after 25."""
    config = Config(200, 100, allocations={"Northern Energy": 10.0}, priority=["7.4"], sharing="none")
    return Mechanism(config, start=0)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ["from_cython", "from_c"])
def test_an_extension_decides_as_python_does(doors: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(doors))
    extension = __import__(name)
    through, plain = mechanism(), mechanism()
    user, srv = through.user("Northern Energy"), through.srv("4.1.1")
    lane = through.lane()
    admitted = extension.storm(lane, user, srv, 1_000, 500)
    assert admitted == sum(bool(plain.admit_at(user, srv, 1_000)) for _ in range(500))
    assert 11 < admitted < 500, "some admitted while inactive, the rest throttled"
    assert np.array_equal(through.snapshot().counts, plain.snapshot().counts)


@pytest.mark.timeout(240)
def test_retry_after_through_c_is_the_one_of_python(doors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(doors))
    import from_c  # type: ignore[import-not-found]

    through, plain = mechanism(), mechanism()
    lane, user = through.lane(), through.user("Northern Energy")
    for _ in range(20):
        assert from_c.retry(lane, user, 1_000) == round(plain.retry_after(user, 1_000) * 1e9)


@pytest.mark.timeout(240)
def test_a_lane_from_cython_answers_for_priority(doors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(doors))
    import from_cython  # type: ignore[import-not-found]

    block = mechanism()
    assert from_cython.one(block.lane(), 0, block.srv("7.4")) == Decision.PRIORITY


def test_the_lanes_run_out_with_a_clear_error_and_come_back() -> None:
    block = mechanism()
    lanes = [block.lane() for _ in range(4)]
    with pytest.raises(RuntimeError, match="all 4 lanes of this Mechanism are taken: close one"):
        block.lane()
    lanes[0].close()
    block.lane().close()


def test_get_include_holds_the_header() -> None:
    header = Path(tmm_core.get_include()) / "tmm_core.h"
    assert "TMM_API_VERSION" in header.read_text(encoding="utf-8")
