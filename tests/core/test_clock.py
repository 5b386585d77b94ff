"""The clock the engine reads: the monotonic one, on Linux without the C library's way round."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from tmm_core.engines import native

AHEAD_S = 1_000_000
PUT_BEFORE = f"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

int clock_gettime(clockid_t id, struct timespec *at)
{{
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, at);
    at->tv_sec += {AHEAD_S};
    return failed;
}}
"""


def test_it_is_the_monotonic_clock() -> None:
    times = [f() for _ in range(1000) for f in (time.monotonic_ns, native.clock)]
    assert times == sorted(times)
    assert 0 <= native.coarse_step() <= 20_000_000


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="how a library is put before others is Linux's"
)
def test_a_clock_put_before_the_librarys_is_the_engines_too(tmp_path: Path) -> None:
    """Whoever tests a gateway with faketime or the like has one time in all of it."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or not sysconfig.get_config_var("HAVE_CLOCK_GETTIME"):
        pytest.skip("no C compiler")
    source, library = tmp_path / "ahead.c", tmp_path / "ahead.so"
    source.write_text(PUT_BEFORE, encoding="utf-8")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, timeout=60)
    told = subprocess.run(
        [sys.executable, "-c", "from tmm_core.engines import native; print(native.clock())"],
        env={**os.environ, "LD_PRELOAD": str(library)}, check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert 0 <= int(told.stdout) - AHEAD_S * 10**9 - time.monotonic_ns() + 60 * 10**9 <= 60 * 10**9
