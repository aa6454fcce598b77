"""Reading ahead and writing behind in threads, while the main thread computes."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


def read_ahead(items: Iterable[T], depth: int = 1) -> Generator[T, None, None]:
    """The items in their order; while one is in use, a thread prepares the next ``depth``."""
    iterator = iter(items)

    def take() -> list[T]:
        """The next item alone in a list, or an empty list at the end."""
        return list(itertools.islice(iterator, 1))

    with ThreadPoolExecutor(1) as thread:
        coming = deque(thread.submit(take) for _ in range(depth + 1))
        while taken := coming.popleft().result():
            yield taken.pop()  # not kept here, since it may be large
            coming.append(thread.submit(take))


class WriteBehind:
    """Runs calls in one thread, in their order, with at most ``depth`` of them waiting.

    Leaving the block waits for all of them. An exception in a call is raised by the next ``submit``
    or on leaving the block.
    """

    def __init__(self, depth: int = 2) -> None:
        self.depth = depth
        self.thread = ThreadPoolExecutor(1)
        self.waiting: deque[Future] = deque()

    def submit(self, call: Callable[..., object], *args: Any) -> None:
        while len(self.waiting) >= self.depth:
            self.waiting.popleft().result()
        self.waiting.append(self.thread.submit(call, *args))

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.thread.shutdown(wait=True)
        if error is None:
            for call in self.waiting:
                call.result()
