"""Work in a thread of its own, so that the one who waits for it can look up in between.

A factorization or a long product cannot be interrupted. The job still answers a request to stop
at once: it leaves, and takes the whole process with it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


class _End:
    """The last thing in the queue: the iteration is over, with or without an error."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def in_background(
    items: Iterable[Item], tick: Callable[[], None], every: float = 0.25
) -> Iterator[Item]:
    """The ``items``, made in a thread; ``tick()`` is called at least ``every`` seconds meanwhile.

    An error in the thread is raised here. When ``tick`` raises, the thread is left behind: it is a
    daemon, and nothing waits for it.
    """
    done: queue.Queue[Item | _End] = queue.Queue(maxsize=1)

    def work() -> None:
        try:
            for item in items:
                done.put(item)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the other side raises it
            done.put(_End(error))
        else:
            done.put(_End(None))

    threading.Thread(target=work, name="background", daemon=True).start()
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
