"""What became of the configuration files is in the event log."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tmm_core import Config
from tmm_core.reload import Reloader

from .world import World

TOML = "[capacity]\nsystem_capacity = 120\noperating_threshold = {}\n"


def test_a_refused_configuration_is_a_fault_and_an_applied_one_a_version(tmp_path: Path) -> None:
    path = tmp_path / "tmm.toml"
    path.write_text(TOML.format(100))
    world = World(tmp_path, Config.load(path))
    try:
        watcher = world.watch()
        watcher.step()
        at = datetime(2026, 11, 25, 12, tzinfo=UTC)
        reloader = Reloader(world.mechanism, tell=watcher.reload_listener, clock=lambda: at)
        path.write_text(TOML.format(500))
        reloader.reload()
        path.write_text(TOML.format(90))
        reloader.reload()
        world.quiet(1, watcher)
        watcher.flush()
        [(detail,)] = world.rows("SELECT detail FROM faults WHERE kind = 'configuration-refused'")
        assert "operating_threshold 500 is above system_capacity 120" in detail
        versions = [
            version for (version,) in world.rows("SELECT version FROM configurations ORDER BY from_ms")
        ]
        assert versions[-1] == world.mechanism.config.version
        assert len(versions) == 2
    finally:
        world.close()
