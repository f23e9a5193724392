"""Ways of training one method that are worth comparing: several values of one setting; and one of its parts changed."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from index.errors import SoftrecError
from training.adapter import check_adapter_name
from training.errors import SettingError
from training.recipes.method import Method, Part, Sweep
from training.settings import S


@dataclass(frozen=True)
class Variant:
    """One way of training a method.

    Attributes:
        name: of its adapter.
        meaning: what is special about it, for people.
        changes: the settings in which it differs from the others.
    """

    name: str
    meaning: str
    changes: Mapping[str, Any]

    def settings(self, common: S) -> S:
        return replace(common, **self.changes)


def whole_method(method: Method) -> Variant:
    """The variant that the ablations are compared with."""
    return Variant(f"{method.name}-full", f"{method.name.upper()} as it is", {})


def parse_values(method: Method, text: str) -> tuple[float, ...]:
    """Read a comma-separated list of values of the setting that the method's sweep varies; empty: its own.

    Raises:
        SettingError: one of them is not a number, not positive, named twice, or has too many digits for an adapter's
            name.
    """
    sweep = _sweep_of(method)
    if not text.strip():
        return sweep.values
    label = sweep.label
    remedy = f"list positive numbers, as in --values {','.join(f'{value:g}' for value in sweep.values)}"
    values: list[float] = []
    for part in (part.strip() for part in text.split(",")):
        try:
            value = float(part)
        except ValueError as error:
            raise SettingError(f"{label} {part!r} is not a number", remedy=remedy) from error
        if not 0 < value < math.inf:
            raise SettingError(f"{label} must be positive and finite, got {part}", remedy=remedy)
        if value in values:
            raise SettingError(f"{label} {value:g} is listed twice", remedy=remedy)
        try:
            check_adapter_name(_name_value(method, value))
        except SoftrecError as error:
            raise SettingError(
                f"{label} {part} is too long for an adapter's name", remedy="give fewer digits"
            ) from error
        values.append(value)
    return tuple(values)


def sweep_variants(method: Method, values: Sequence[float]) -> list[Variant]:
    """One variant per value, named so that different values never share a name: soft-alpha-0_1, soft-alpha-1e-05."""
    sweep = _sweep_of(method)
    return [Variant(_name_value(method, value), f"{sweep.label} {value:g}", {sweep.setting: value}) for value in values]


def _sweep_of(method: Method) -> Sweep:
    assert method.sweep is not None  # the command line chose a method that has one
    return method.sweep


def _name_value(method: Method, value: float) -> str:
    """The shortest decimal that gives this float back, in the letters that a name may have."""
    spelled = repr(float(value)).removesuffix(".0").replace("+", "").replace(".", "_")
    return f"{method.name}-{_sweep_of(method).label}-{spelled}"


def ablation_variants(method: Method, names: Sequence[str], updates: int = 1) -> list[Variant]:
    """The method with one part changed, once per name; the adapters' names begin with the method's.

    Args:
        updates: per epoch; decides no name.
    """
    parts = {part.name: part for part in _parts_of(method, updates)}
    return [Variant(f"{method.name}-{name}", parts[name].meaning, parts[name].changes) for name in names]


def parse_ablations(method: Method, text: str) -> tuple[str, ...]:
    """Read a comma-separated list of ablations; an empty one means all.

    Raises:
        SettingError: one is unknown (with the nearest known one) or named twice.
    """
    known = [part.name for part in _parts_of(method, 1)]
    names = [part.strip() for part in text.split(",")] if text.strip() else known
    for at, name in enumerate(names):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}"
            raise SettingError(f"unknown ablation {name!r}", remedy=hint)
        if name in names[:at]:
            raise SettingError(f"ablation {name} is listed twice", remedy="list it once")
    return tuple(names)


def _parts_of(method: Method, updates: int) -> tuple[Part, ...]:
    assert method.ablations is not None  # likewise
    return method.ablations(updates)
