"""Say in one line what this machine lacks to build tmm-core; say nothing when it lacks nothing.

Runs with any Python, also with one that is too old, so it uses no new syntax.
"""

import os
import shlex
import subprocess
import sys
import sysconfig

OLDEST = (3, 11)


def fail(message):
    sys.stderr.write("tmm-core: %s\n" % message)
    sys.exit(1)


def lacks_module(name):
    try:
        __import__(name)
    except ImportError:
        return True
    return False


def main():
    version = "%d.%d" % sys.version_info[:2]
    if sys.version_info < OLDEST:
        fail(
            "%s is Python %s, expected 3.11 or newer: install one and name it, for example "
            "'make PYTHON=python3.13 test'" % (sys.executable, version)
        )
    if sys.maxsize < 2**32:
        fail("%s is a 32-bit Python: a bucket is one 64-bit word, so install a 64-bit one" % sys.executable)
    if lacks_module("venv") or lacks_module("ensurepip"):
        fail(
            "Python %s has no venv module or no ensurepip: install it "
            "(Debian and Ubuntu: 'apt-get install python3-venv')" % version
        )
    if os.name == "nt":
        return  # setuptools finds MSVC by itself, and setup.py says what to do when it does not
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    include = sysconfig.get_path("include")
    remedy = "(Debian and Ubuntu: 'apt-get install build-essential', macOS: 'xcode-select --install')"
    command = compiler + ["-fsyntax-only", "-x", "c", "-"]
    try:
        tried = subprocess.run(command, input=b"#include <stdlib.h>\n", capture_output=True, check=False)
    except OSError:
        fail("found no C compiler '%s': install gcc or clang %s, or set CC" % (compiler[0], remedy))
    if tried.returncode:
        fail(
            "the C compiler '%s' finds no C library: install its headers %s, or set CC"
            % (compiler[0], remedy)
        )
    if not os.path.exists(os.path.join(include, "Python.h")):
        fail(
            "found no Python.h in %s: install the headers of Python %s (Debian and Ubuntu: "
            "'apt-get install python3-dev', Fedora: 'dnf install python3-devel')" % (include, version)
        )


main()
