"""What the stepping tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.stepping import Host, built


@pytest.fixture(scope="session")
def stepper(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The stepper, compiled once."""
    return built(tmp_path_factory.mktemp("stepper"))


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Callable[[str], Host]]:
    made: list[Host] = []

    def make(sharing: str) -> Host:
        made.append(Host(tmp_path, sharing))
        return made[-1]

    yield make
    for host in made:
        host.mechanism.close()
