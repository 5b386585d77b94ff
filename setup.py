"""Build the one extension module; everything static is in pyproject.toml."""

import os
import sys
from glob import glob

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError, PlatformError

DEBUG = os.environ.get("TMM_DEBUG") == "1"
SANITIZE = os.environ.get("TMM_SANITIZE", "")

if sys.platform == "win32":
    compile_args = ["/O2", "/std:c11"]
    link_args: list[str] = []
else:
    optimise = ["-O0", "-g"] if DEBUG else ["-O3", "-g0"]
    compile_args = [*optimise, "-fvisibility=hidden", "-std=gnu11", "-Wall", "-Wno-unused-function"]
    if sys.platform == "linux" and not DEBUG and "clang" not in os.environ.get("CC", ""):
        # A third less to load and to ship, and as fast (docs/decisions/0050, 0056 and 0060): what is cold stays in one
        # piece, and no loop is there twice.
        compile_args += ["--param", "inline-unit-growth=41", "-fno-reorder-blocks-and-partition"]
        compile_args += ["-falign-labels=1", "-fno-unswitch-loops"]
    link_args = [] if DEBUG else (["-Wl,-x"] if sys.platform == "darwin" else ["-Wl,-s"])
    if SANITIZE:
        compile_args = ["-O1", "-g", f"-fsanitize={SANITIZE}", "-std=gnu11"]
        link_args = [f"-fsanitize={SANITIZE}"]

extension = Extension(
    "tmm_core._core.engine",
    ["src/tmm_core/_core/engine.pyx"],
    include_dirs=[numpy.get_include(), "src/tmm_core/_core"],
    depends=[*glob("src/tmm_core/_core/*.pxi"), "src/tmm_core/_core/atomics.h", "setup.py"],
    define_macros=[
        ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
        ("NPY_TARGET_VERSION", "NPY_1_25_API_VERSION"),
        # A second way to construct each class, and exceptions without Python's functions: for what is seldom done.
        ("CYTHON_VECTORCALL_TPNEW", "0"),
        ("CYTHON_FAST_THREAD_STATE", "0"),
    ],
    extra_compile_args=compile_args,
    extra_link_args=link_args,
)


class BuildEngine(build_ext):
    """Say what to do where the engine cannot be built: nothing can stand in for it."""

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except (CompileError, LinkError, PlatformError) as error:
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            raise SystemExit(
                f"tmm-core: the engine was not built ({error}): it needs gcc, clang or MSVC and the headers "
                f"of Python {version} (Debian and Ubuntu: 'apt-get install build-essential python3-dev'); "
                "a wheel needs neither"
            ) from None


setup(
    cmdclass={"build_ext": BuildEngine},
    ext_modules=cythonize(
        [extension],
        build_dir="build",
        compiler_directives={"language_level": 3, "boundscheck": DEBUG, "auto_pickle": False},
    ),
)
