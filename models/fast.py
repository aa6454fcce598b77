"""The registry of faster forms: functions that compute a block's values in another way.

A network file holds the paper's formula alone and marks it as ``replaceable``. ``NAME_fast.py``
beside it registers the faster forms with ``fast_form``. ``reference_ops`` leaves the registry
empty, so that every block computes its own formula: exporters want that (fewer, larger steps), and
``tests/models/test_networks.py`` compares the two for every network.
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
    """``compute`` takes the place of a formula for those arguments that ``when`` accepts."""

    compute: Callable[..., Any]
    when: Callable[..., bool]


# "module.qualified name" of the formula -> the form that may replace it
FAST_FORMS: dict[str, FastForm] = {}


def replaceable(formula: Function) -> Function:
    """A function or ``forward`` method that takes its registered fast form where there is one."""
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

    Both take the same arguments; of a method the first one is the module. Raises ValueError where
    ``of`` is not replaceable or has a fast form already.
    """
    name = _full_name(of)
    if not hasattr(of, "__wrapped__"):
        raise ValueError(f"{name} is not replaceable; decorate it with models.fast.replaceable.")

    def register(function: Function) -> Function:
        if name in FAST_FORMS:
            raise ValueError(f"{name} has two fast forms, {function.__name__} is the second.")
        FAST_FORMS[name] = FastForm(function, when)
        return function

    return register


@contextmanager
def reference_ops() -> Iterator[None]:
    """Within it every block computes the formula in its own file, on every device."""
    registered = dict(FAST_FORMS)
    FAST_FORMS.clear()
    try:
        yield
    finally:
        FAST_FORMS.update(registered)


def on_cpu(*args: Any) -> bool:
    """Whether the tensors among the arguments are on a CPU; the first one decides."""
    for value in args:
        if isinstance(value, Tensor):
            return value.device.type == "cpu"
    return False


def _full_name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
