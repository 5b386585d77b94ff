"""How the tests run: Hypothesis profiles, and one seed for everything that is random.

``quick`` is for every change, ``deep`` for ``make prove``, ``seeded`` for engines broken on purpose;
``TMM_HYPOTHESIS_PROFILE`` chooses. What is random is repeated by ``TMM_TEST_SEED``, which the first lines of a run
show.
"""

from __future__ import annotations

import os
import random
import zlib

import pytest
from hypothesis import HealthCheck, Phase, settings

_SEED = os.environ.get("TMM_TEST_SEED")
SEED = int(_SEED) if _SEED else random.SystemRandom().randrange(2**32)

# No deadline: a busy machine is no bug, and pytest-timeout ends what hangs.
_COMMON = {"deadline": None, "print_blob": True}
settings.register_profile("quick", max_examples=100, **_COMMON)
settings.register_profile(
    "deep",
    max_examples=10_000,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    **_COMMON,
)
# To find a defect that was put in on purpose: whether a test fails, not on the smallest example.
settings.register_profile(
    "seeded", max_examples=100, phases=[Phase.explicit, Phase.generate], database=None,
    suppress_health_check=[HealthCheck.too_slow], **_COMMON,
)  # fmt: skip
PROFILE = os.environ.get("TMM_HYPOTHESIS_PROFILE", "quick")
settings.load_profile(PROFILE)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Hand the seed to Hypothesis, where one was asked for."""
    # Without one, Hypothesis chooses by itself and first tries again what failed the last time.
    if _SEED and config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = str(SEED)


def pytest_report_header() -> str:
    """Say how to run the same tests again."""
    return f"tmm-core: seed {SEED} (again: TMM_TEST_SEED={SEED}), Hypothesis profile {PROFILE}"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Return this test's own seed, the same in any order and any selection of tests."""
    return zlib.crc32(request.node.nodeid.encode(), SEED)
