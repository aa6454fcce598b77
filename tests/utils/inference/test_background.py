"""Reading ahead and writing in the background: in order, bounded, with all errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from utils.inference.background import WriteBehind, read_ahead


def test_the_next_item_is_prepared_while_one_is_in_use() -> None:
    made = [threading.Event() for _ in range(5)]

    def items() -> Iterator[int]:
        for i, event in enumerate(made):
            event.set()
            yield i

    taken = []
    for item in read_ahead(items(), depth=1):
        taken.append(item)
        if item + 1 < len(made):
            assert made[item + 1].wait(10)
        assert not any(event.is_set() for event in made[item + 2 :])
    assert taken == [0, 1, 2, 3, 4]


def test_an_error_of_the_reader_is_raised_in_order() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("second")

    reading = read_ahead(items())
    assert next(reading) == 1
    with pytest.raises(ValueError, match="second"):
        next(reading)


def test_calls_run_in_order_and_finish_before_the_end() -> None:
    written: list[int] = []
    caller = threading.get_ident()
    threads = set()

    def write(number: int) -> None:
        threads.add(threading.get_ident())
        written.append(number)

    with WriteBehind() as writer:
        for i in range(20):
            writer.submit(write, i)
    assert written == list(range(20))
    assert caller not in threads


def test_the_number_of_waiting_calls_is_bounded() -> None:
    gate = threading.Event()
    started: list[int] = []

    def write(number: int) -> None:
        started.append(number)
        gate.wait(10)

    with WriteBehind(depth=2) as writer:
        for i in range(2):
            writer.submit(write, i)
        blocked = threading.Thread(target=writer.submit, args=(write, 2))
        blocked.start()
        blocked.join(0.05)
        assert blocked.is_alive()  # two calls are waiting, so a third is not accepted yet
        gate.set()
        blocked.join(10)
    assert started == [0, 1, 2]


def test_an_error_in_a_call_is_raised() -> None:
    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), WriteBehind() as writer:
        writer.submit(fail)


def test_waiting_calls_still_finish_after_an_interruption() -> None:
    written = []
    with pytest.raises(KeyboardInterrupt), WriteBehind() as writer:
        writer.submit(written.append, 1)
        raise KeyboardInterrupt
    assert written == [1]
