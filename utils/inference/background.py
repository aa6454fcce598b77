"""Reading ahead and writing behind in threads, while the main thread computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


def read_ahead(items: Iterable[T], depth: int = 1) -> Iterator[T]:
    """The items in their order; while one is in use, a thread makes the next ``depth``."""
    end = object()
    iterator = iter(items)
    with ThreadPoolExecutor(1) as thread:
        coming = deque(thread.submit(next, iterator, end) for _ in range(depth + 1))
        while (item := coming.popleft().result()) is not end:
            yield item
            del item  # it may be large, and the thread is about to make another
            coming.append(thread.submit(next, iterator, end))


class WriteBehind:
    """Runs calls in one thread, in their order, at most ``depth`` of them waiting.

    Leaving the block waits for all of them. An exception of a call comes out of the next ``submit``
    or of leaving the block.
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
