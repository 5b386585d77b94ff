"""What a configuration may say: limits and the checks of single values, each finding told as a mistake.

A check appends to `found` and goes on, so that all mistakes of a configuration are told at once. A mistake's
`field` names the value (``operating_threshold``, ``allocations['Northern Energy']``): whoever read the value
from a file puts the place in front.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from numbers import Integral, Real

from tmm_core.errors import Mistake
from tmm_core.policy.service_requests import fault_of, is_srv, variants_of

__all__ = [
    "CATEGORIES",
    "MODES",
    "SHARINGS",
    "allocation_fault",
    "canonical_id",
    "did_you_mean",
    "element",
    "escaped",
    "hidden_in",
    "is_eui64",
    "name_fault",
    "shown",
    "uncovered",
]

CATEGORIES = ("large-supplier", "small-supplier", "electricity-network", "gas-network", "other")
SHARINGS = ("fair", "first-come", "none")
MODES = ("enforce", "observe")

MAX_USERS = 1_000_000
MAX_NAME = 200  # characters
MIN_RATE = 1e-5  # units per second: one per day is 1.16e-5
MAX_ALLOCATION = 1e6  # units per second
MAX_THRESHOLD = 1e9  # units per second
MAX_COST = 1000  # units
MOST_HINTS = 100  # mistakes, of all kinds, of which it is still asked what was meant
# A single Service Request may not be charged further ahead than this: the bucket's word compares times by
# their difference and takes one further ahead than 208 days for a past one.
MAX_CHARGE_S = 100 * 86_400.0

# Characters that change how a line reads without being seen: controls, zero-width and bidirectional marks,
# line and paragraph separators, halves of surrogate pairs, the byte order mark inside a text.
_HIDDEN = (
    ("\x00", "\x1f"), ("\x7f", "\x9f"), ("\u061c", "\u061c"), ("\u200b", "\u200f"), ("\u2028", "\u202e"),
    ("\u2060", "\u2069"), ("\ud800", "\udfff"), ("\ufeff", "\ufeff"),
)  # fmt: skip
_HEXADECIMAL = frozenset("0123456789ABCDEFabcdef")


def hidden_in(text: str) -> str | None:
    """Return the first character of a text that is hidden; None if none is."""
    # What is hidden is never printable. No regular expression: it would be compiled at every start of a worker.
    return None if text.isprintable() else next(filter(_is_hidden, text), None)


def uncovered(text: str, shown: Callable[[str], str]) -> str:
    """Return a text with each hidden character as `shown` shows it."""
    return text if text.isprintable() else "".join(shown(each) if _is_hidden(each) else each for each in text)


def _is_hidden(char: str) -> bool:
    return any(low <= char <= high for low, high in _HIDDEN)


def escaped(char: str) -> str:
    """Return a character as a number: ``\\u200b``."""
    return f"\\u{ord(char):04x}"


def shown(value: object) -> str:
    """Return a value as an error message shows it: short, on one line."""
    try:
        if isinstance(value, float):
            text = format(value, ".15g")
        else:
            text = repr(value)
    except ValueError:  # an int of more digits than Python prints
        text = "an integer of thousands of digits"
    return text if len(text) <= 80 else text[:77] + "..."


def element(field: str, key: object) -> str:
    """Return the field name of one entry of a mapping: ``allocations['Northern Energy']``."""
    return f"{field}[{shown(key)}]"


def did_you_mean(word: object, known: Iterable[str], found: Sized = ()) -> str:
    """Return ``" (did you mean 'hold_s'?)"``, or nothing if no known word is near.

    Nor after `MOST_HINTS` mistakes that are `found` already: to look for a word takes many times what all else does.
    """
    if not isinstance(word, str) or len(word) > 60 or len(found) >= MOST_HINTS:
        return ""
    import difflib  # only for who has mistyped: a worker's start does not pay for it

    near = difflib.get_close_matches(word.lower(), known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def is_eui64(text: str) -> bool:
    """Tell whether a text is an EUI-64 as DUIS writes it: eight hexadecimal octets joined by ``-``."""
    return (
        len(text) == 23
        and text[2::3] == "-------"
        and _HEXADECIMAL.issuperset(text[::3])
        and _HEXADECIMAL.issuperset(text[1::3])
    )


def canonical_id(text: str) -> str:
    """Return an EUI-64 in upper case, any other text as it is."""
    return text.upper() if len(text) == 23 and is_eui64(text) else text


def name_fault(name: object) -> str | None:
    """Say what is wrong with the name of a Service User; None if nothing is."""
    if not isinstance(name, str):
        return f"name {shown(name)} must be text"
    if not name or name.isspace():
        return "name must not be empty"
    if len(name) > MAX_NAME:
        return f"name {shown(name)} has {len(name)} characters, at most {MAX_NAME} are allowed"
    hidden = hidden_in(name)
    if hidden is not None:
        return f"name {name!a} has the invisible character U+{ord(hidden):04X} in it"
    if name != name.strip():
        return f"name {name!r} must not begin or end with white space"
    return None


def as_number(value: object) -> float | None:
    """Return a real number as a float, infinite if it is too large for one; None for anything else."""
    # + 0.0 makes -0.0 plain zero, so that equal configurations are written alike
    if type(value) is float:  # what files hold; to ask for Real takes ten times as long
        return value + 0.0
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value) + 0.0
    except OverflowError:
        return math.inf


def number(
    field: str, value: object, low: float, high: float, found: list[Mistake], *, above: bool = False
) -> float | None:
    """Check a number between `low` and `high` (above `low`, if `above`); None if it is none."""
    expected = f"above {low:g}" if above else f"from {low:g} to {high:g}"
    checked = as_number(value)
    if checked is None:
        fault = f"{field} {shown(value)} must be a number {expected}"
    elif not math.isfinite(checked):
        fault = f"{field} {shown(value)} must be a finite number {expected}"
    elif checked < low or (above and checked == low):
        fault = f"{field} {shown(value)} must be {expected}"
    elif checked > high:
        fault = f"{field} {shown(value)} must be at most {high:g}"
    else:
        return checked
    found.append(Mistake(fault, field=field))
    return None


def whole(field: str, value: object, low: int, high: int, found: list[Mistake]) -> int | None:
    """Check a whole number from `low` to `high`; None if it is none."""
    checked = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None
    if checked is None:
        fault = f"{field} {shown(value)} must be a whole number from {low} to {high:,}"
    elif not low <= checked <= high:
        fault = f"{field} {shown(value)} must be from {low} to {high:,}"
    else:
        return checked
    found.append(Mistake(fault, field=field))
    return None


def choice(field: str, value: object, known: Sequence[str], found: list[Mistake]) -> None:
    """Check that a value is one of the known words."""
    if not (isinstance(value, str) and value in known):
        expected = ", ".join(known[:-1]) + " or " + known[-1]
        hint = did_you_mean(value, known)
        found.append(Mistake(f"{field} {shown(value)} must be {expected}{hint}", field=field))


def optional_text(field: str, value: object, found: list[Mistake]) -> None:
    """Check a text that may be absent (None)."""
    if value is None:
        return
    if not isinstance(value, str) or not value.strip():
        found.append(Mistake(f"{field} {shown(value)} must be a text that is not empty", field=field))
    elif hidden_in(value):
        found.append(Mistake(f"{field} {value!a} has an invisible character in it", field=field))


def allocation_fault(value: object, word: str = "allocation") -> str | None:
    """Say what is wrong with an allocation, units per second; None if nothing is."""
    checked = as_number(value)
    if checked is None:
        return f"{word} {shown(value)} must be a number, units per second"
    if not math.isfinite(checked):
        return f"{word} {shown(value)} must be a finite number, 0 or more"
    if checked < 0:
        return f"{word} {shown(value)} must be 0 or more"
    if checked and not MIN_RATE <= checked <= MAX_ALLOCATION:
        return f"{word} {shown(value)} must be 0, or from {MIN_RATE:g} to {MAX_ALLOCATION:g} units per second"
    return None


def mapping(field: str, value: object, found: list[Mistake]) -> Mapping[object, object]:
    """Check that a value is a mapping; an empty one if it is none."""
    if isinstance(value, Mapping):
        return value
    found.append(Mistake(f"{field} {shown(value)} must be a mapping", field=field))
    return {}


def allocations_of(value: object, found: list[Mistake], what: str = "allocations") -> dict[str, float]:
    """Check the allocations by User; return the good ones. `what` is the field they are given in."""
    given = mapping(what, value, found)
    if len(given) > MAX_USERS:
        fault = f"{what}: {len(given):,} Users are more than {MAX_USERS:,}"
        found.append(Mistake(fault, field=what))
        return {}
    good: dict[str, float] = {}
    for name, allocation in given.items():
        checked = as_number(allocation)
        wrong_name, wrong_rate = name_fault(name), None
        if not (checked == 0.0 or (checked is not None and MIN_RATE <= checked <= MAX_ALLOCATION)):
            wrong_rate = allocation_fault(allocation)
        faults = [each for each in (wrong_name, wrong_rate) if each is not None]
        if isinstance(name, str):
            user = canonical_id(name)
            if user in good:  # an EUI-64 as a name, once in upper and once in lower case
                faults.append(f"User {user!r} is listed twice")
            # One that is told already still has its User, lest its identifiers be told as well.
            good[user] = 0.0 if checked is None else checked
        if faults:
            field = element(what, name)
            found += [Mistake(f"{field}: {each}", field=field) for each in faults]
    return good


def user_ids_of(value: object, users: Mapping[str, float], found: list[Mistake]) -> dict[str, str]:
    """Check which User owns which EUI-64; return the good ones, identifiers in upper case."""
    good: dict[str, str] = {}
    for user_id, owner in mapping("user_ids", value, found).items():
        fault = user_id_fault(user_id)
        if fault is None and not isinstance(owner, str):
            fault = f"owner {shown(owner)} must be the name of a User"
        if fault is None:
            assert isinstance(user_id, str) and isinstance(owner, str)
            own, name = user_id.upper(), canonical_id(owner)
            fault = ownership_fault(own, name, users, good, found)
            good.setdefault(own, name)
        if fault is not None:
            field = element("user_ids", user_id)
            found.append(Mistake(f"{field}: {fault}", field=field))
    return good


def user_id_fault(user_id: object) -> str | None:
    """Say what is wrong with an identifier of a User; None if nothing is."""
    if isinstance(user_id, str) and is_eui64(user_id):
        return None
    return f"{shown(user_id)} must be an EUI-64: eight hexadecimal octets joined by '-'"


def ownership_fault(
    user_id: str, name: str, users: Mapping[str, float], owners: Mapping[str, str], found: Sized = ()
) -> str | None:
    """Say what is wrong with `name` owning `user_id`; None if nothing is. Both are canonical."""
    if name not in users:
        near = did_you_mean(name, users, found) if len(users) <= 1000 else ""
        return f"owner {shown(name)} has no allocation{near}"
    if user_id in users and user_id != name:
        return f"{user_id} of {shown(name)} is the name of another User"
    if user_id in owners:
        owner = owners[user_id]
        whose = "twice" if owner == name else f"by {shown(owner)} and by {shown(name)}"
        return f"{user_id} is owned {whose}"
    return None


def categories_of(value: object, users: Mapping[str, float], found: list[Mistake]) -> dict[str, str]:
    """Check the party categories by User; return the good ones."""
    good: dict[str, str] = {}
    for name, category in mapping("categories", value, found).items():
        field = element("categories", name)
        if not isinstance(name, str) or canonical_id(name) not in users:
            found.append(Mistake(f"{field}: User {shown(name)} has no allocation", field=field))
        elif category not in CATEGORIES:
            found.append(Mistake(f"{field}: {category_fault(category)}", field=field))
        else:
            good[canonical_id(name)] = str(category)
    return good


def category_fault(category: object) -> str:
    """Say what a category must be."""
    hint = did_you_mean(category, CATEGORIES)
    return f"category {shown(category)} must be one of {', '.join(CATEGORIES)}{hint}"


def costs_of(value: object, found: list[Mistake]) -> dict[str, int]:
    """Check the costs by SRV; return the good ones."""
    good: dict[str, int] = {}
    for code, cost in mapping("costs", value, found).items():
        field = element("costs", code)
        if not isinstance(code, str) or not is_srv(code):
            variants = ", ".join(variants_of(str(code)))
            fault = (
                fault_of(code, hint=len(found) < MOST_HINTS)
                or f"{code!r} is a Service Reference: name its variants ({variants})"
            )
            found.append(Mistake(f"{field}: {fault}", field=field))
        wrong: list[Mistake] = []
        checked = whole("cost", cost, 1, MAX_COST, wrong)
        found += [Mistake(f"{field}: {mistake.message}, units", field=field) for mistake in wrong]
        if isinstance(code, str) and checked is not None:
            good[code] = checked
    return good


def srvs_of(value: object, field: str, found: list[Mistake]) -> tuple[str, ...]:
    """Check the entries of a priority list; return the good ones."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        fault = f"{field} {shown(value)} must be a list of SRVs, for example ['2.2', '7.4']"
        found.append(Mistake(fault, field=field))
        return ()
    good: dict[str, None] = {}
    for index, code in enumerate(value):
        wrong = fault_of(code, hint=len(found) < MOST_HINTS)
        if wrong is None and code in good:
            wrong = f"{code!r} is listed twice"
        if wrong is not None:
            found.append(Mistake(f"{field}[{index}]: {wrong}", field=f"{field}[{index}]"))
        elif isinstance(code, str):
            good[code] = None
    return tuple(good)
