"""Values: dataclasses whose methods are written here once, instead of as source that is compiled at every start."""

from __future__ import annotations

from dataclasses import Field, FrozenInstanceError, dataclass, field, fields
from typing import Any, ClassVar, TypeVar, dataclass_transform

__all__ = ["Value", "frozen_value"]

_V = TypeVar("_V", bound="Value")


class Value:
    """What a frozen dataclass writes for a class, but for its ``__init__``: that one calls `_begin`."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def _begin(self, given: dict[str, Any]) -> None:
        """Set the fields; `given` holds their values by name, and may hold more."""
        for each in fields(self):
            object.__setattr__(self, each.name, given[each.name])

    def _content(self) -> tuple[object, ...]:
        return tuple(getattr(self, each.name) for each in fields(self))

    def __setattr__(self, name: str, given: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Value) or other.__class__ is not self.__class__:
            return NotImplemented
        return self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())

    def __repr__(self) -> str:
        shown = (f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr)
        return f"{self.__class__.__qualname__}({', '.join(shown)})"


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen_value(cls: type[_V]) -> type[_V]:
    """Make a dataclass of a subclass of `Value`: `dataclasses.fields` and `replace` know it."""
    return dataclass(init=False, repr=False, eq=False)(cls)
