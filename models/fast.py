"""The registry of faster forms: functions that compute a block's values in another way.

A network file holds the paper's formulas alone and marks some as ``replaceable``. ``NAME_fast.py``
beside it registers faster forms with ``fast_form``. Inside ``reference_ops`` every block computes
its formula: exporters need that (fewer, larger operations), and tests/models/test_networks.py
compares both for every network.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class FastForm:
    """``compute`` replaces a formula for the arguments that ``when`` accepts."""

    compute: Callable[..., Any]
    when: Callable[..., bool]


# "module.qualified name" of the formula -> the form that may replace it
FAST_FORMS: dict[str, FastForm] = {}


def replaceable(formula: Function) -> Function:
    """Decorator of a function or ``forward`` method that a registered fast form may replace."""
    name = _full_name(formula)

    @functools.wraps(formula)
    def compute(*args: Any) -> Any:
        form = FAST_FORMS.get(name)
        if form is not None and form.when(*args):
            return form.compute(*args)
        return formula(*args)

    return compute  # type: ignore[return-value]  # it has the formula's own signature


def fast_form(of: Callable[..., Any], when: Callable[..., bool]) -> Callable[[Function], Function]:
    """Register the decorated function as the fast form of a ``replaceable`` one.

    Both take the same arguments; a method's first one is the module. Raises ValueError if ``of`` is
    not replaceable or already has a fast form.
    """
    name = _full_name(of)
    if not hasattr(of, "__wrapped__"):
        raise ValueError(f"{name} is not replaceable; decorate it with models.fast.replaceable.")

    def register(function: Function) -> Function:
        if name in FAST_FORMS:
            raise ValueError(f"{name} already has a fast form; drop {function.__name__}.")
        FAST_FORMS[name] = FastForm(function, when)
        return function

    return register


@contextmanager
def reference_ops() -> Iterator[None]:
    """A context in which every block computes the formula in its own file, on every device."""
    registered = dict(FAST_FORMS)
    FAST_FORMS.clear()
    try:
        yield
    finally:
        FAST_FORMS.update(registered)


def on_cpu(*args: Any) -> bool:
    """Whether the first tensor among the arguments is on a CPU."""
    for value in args:
        if isinstance(value, Tensor):
            return value.device.type == "cpu"
    return False


def _full_name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
