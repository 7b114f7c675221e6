"""Check the value of a JSON file against a type of `core.records`: the file may be damaged, or edited by hand."""

from __future__ import annotations

import functools
import sys
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    NamedTuple,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)


class Between(NamedTuple):
    """A number lies between these, within rounding."""

    low: float
    high: float


class Length(NamedTuple):
    """A list has this many values."""

    length: int


class Square(NamedTuple):
    """A list has as many lists, each with as many values."""


Share = Annotated[float, Between(0, 1)]
Pair = Annotated[list[float], Length(2)]
Interval = Pair  # low, high
Matrix = Annotated[list[list[int]], Square()]
LARGEST = {float: sys.float_info.max, int: 2**63 - 1, bool: 1}  # what NumPy holds, too
ROUNDING = 1e-6  # means of float32 may exceed 1 by this


def misfit(value: Any, kind: Any, at: str = "") -> str:
    """Return where and how a JSON value differs from a type, or an empty string if it does not.

    Numbers must be finite, and integers are no floats with a fraction. A key that the type does not name is allowed,
    because a newer version may have written it. A key is required unless the type says NotRequired or total=False.

    Args:
        value: what `json.loads` returned.
        kind: a TypedDict, list[...], dict[str, ...], tuple[...], a union, float, int, str, bool, None or Any; or
            one of these with `Between`, `Length` or `Square` in an `Annotated`.
        at: the place of the value in the file, like "classes[3]".

    >>> misfit({"a": [1, "x"]}, dict[str, list[int]])
    "'a[1]' is text; expected a whole number"
    """
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return ""
    if origin is Annotated:
        return misfit(value, parts[0], at) or misfit_of_rule(value, parts[1], at)
    if is_typeddict(kind):
        return wrong(value, at, "an object") if not isinstance(value, dict) else misfit_of_keys(value, kind, at)
    if origin in (Union, UnionType):
        found = [misfit(value, part, at) for part in parts]
        return (
            "" if "" in found else next(each for each, part in zip(found, parts, strict=True) if part is not NoneType)
        )
    if origin is list or origin is tuple:
        if not isinstance(value, list):
            return wrong(value, at, "a list")
        if origin is tuple and len(value) != len(parts):
            return f"'{at}' has {len(value)} values; expected {len(parts)}"
        kinds = parts if origin is tuple else parts * len(value)
        places = (f"{at}[{number}]" for number in range(len(value)))
        return next(filter(None, map(misfit, value, kinds, places)), "")
    if origin is dict:
        if not isinstance(value, dict):
            return wrong(value, at, "an object")
        return next(filter(None, (misfit(each, parts[1], joined(at, key)) for key, each in value.items())), "")
    return "" if is_plain(value, kind) else wrong(value, at, NAMES[kind])


def misfit_of_rule(value: Any, rule: Between | Length | Square, at: str) -> str:
    """Return how a value breaks a rule; its type is right."""
    if isinstance(rule, Square):
        odd = next((number for number, row in enumerate(value) if len(row) != len(value)), None)
        return "" if odd is None else f"'{at}[{odd}]' has {len(value[odd])} values; expected {len(value)}"
    if isinstance(rule, Length):
        return "" if len(value) == rule.length else f"'{at}' has {len(value)} values; expected {rule.length}"
    fits = rule.low - ROUNDING <= value <= rule.high + ROUNDING
    return "" if fits else f"'{at}' is {value:g}; expected {rule.low:g} to {rule.high:g}"


def misfit_of_keys(value: dict[str, Any], kind: Any, at: str) -> str:
    """Return how an object differs from a TypedDict."""
    for key, (inner, required) in keys_of(kind).items():
        if key not in value:
            if required:
                return f"'{joined(at, key)}' is missing"
        elif found := misfit(value[key], inner, joined(at, key)):
            return found
    return ""


@functools.cache
def keys_of(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Return the type of each key of a TypedDict, and whether the key is required.

    `__required_keys__` is wrong where annotations are strings (python.org, issue 97727).
    """
    hints = get_type_hints(kind, include_extras=True)
    marked = {NotRequired: False, Required: True}
    return {
        key: (get_args(hint)[0], marked[origin]) if (origin := get_origin(hint)) in marked else (hint, kind.__total__)
        for key, hint in hints.items()
    }


NAMES: dict[Any, str] = {
    float: "a number", int: "a whole number", str: "text", bool: "true or false", NoneType: "null", dict: "an object",
    list: "a list",
}  # fmt: skip


def is_plain(value: Any, kind: Any) -> bool:
    """Return whether a value has one of the types of `NAMES`."""
    if kind in (float, int):
        fits = isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
        return fits and abs(value) <= LARGEST[type(value)]  # neither infinite nor NaN
    return isinstance(value, kind)


def wrong(value: Any, at: str, expected: str) -> str:
    """Return that a value is not what was expected."""
    found = NAMES[type(value)]
    if isinstance(value, float | int) and not abs(value) <= LARGEST[type(value)]:
        found = "not finite" if isinstance(value, float) else "too large"
    return f"'{at}' is {found}; expected {expected}" if at else f"it is {found}; expected {expected}"


def joined(at: str, key: str) -> str:
    """Return the place of a key in an object."""
    return f"{at}.{key[:40]}" if at else key[:40]
