"""Work in a thread of its own, so that the one who waits for it can look up in between.

A factorization or a long product cannot be interrupted. The job still answers a request to stop
at once: it leaves, and takes the whole process with it (``worker.leave``).
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

PATIENCE = 0.5
"""Seconds that a thread which is no longer wanted gets to notice and to clean up after itself."""


class _End:
    """The last thing in the queue: the iteration is over, with or without an error."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def in_background(
    items: Iterable[Item], tick: Callable[[], None], every: float = 0.25
) -> Iterator[Item]:
    """The ``items``, made in a thread; ``tick()`` is called at least ``every`` seconds meanwhile.

    An error in the thread is raised here. When ``tick`` raises, or nobody asks for more items, the
    thread gets ``PATIENCE`` to end and is left behind then: it is a daemon, and what it still makes
    is dropped.
    """
    done: queue.Queue[Item | _End] = queue.Queue(maxsize=1)
    unwanted = threading.Event()

    def hand_over(item: Item | _End) -> None:
        while not unwanted.is_set():
            with contextlib.suppress(queue.Full):
                done.put(item, timeout=every)
                return

    def work() -> None:
        try:
            for item in items:
                hand_over(item)
                if unwanted.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - whatever it is, the other side raises it
            hand_over(_End(error))
        else:
            hand_over(_End(None))

    thread = threading.Thread(target=work, name="background", daemon=True)
    thread.start()
    try:
        while True:
            tick()
            try:
                item = done.get(timeout=every)
            except queue.Empty:
                continue
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        unwanted.set()
        thread.join(PATIENCE)
