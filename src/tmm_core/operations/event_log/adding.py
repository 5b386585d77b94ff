"""Adding to rows that may be there already."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["adding", "by_day"]

_DAY = 86_400


def adding(table: str, keys: tuple[str, ...], columns: tuple[str, ...]) -> str:
    """An insertion that adds to the row where there is one already."""
    return (
        f"INSERT INTO {table} ({', '.join((*keys, *columns))}) VALUES ({', '.join('?' * len((*keys, *columns)))})"
        f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET "
        + ", ".join(f"{name} = {name} + excluded.{name}" for name in columns)
    )


def by_day(rows: Iterable[tuple[int, ...]], *, keys: int) -> list[tuple[int, ...]]:
    """Rows by minute, added up by day."""
    days: dict[tuple[int, ...], list[int]] = {}
    for row in rows:
        key = (row[0] // _DAY * _DAY, *row[1:keys])
        amounts = row[keys:]
        found = days.get(key)
        days[key] = list(amounts) if found is None else [a + b for a, b in zip(found, amounts, strict=True)]
    return [(*key, *amounts) for key, amounts in days.items()]
