"""How often one caller may call, and how many calls of strangers go on at once."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator

from quantd_server.errors import QuantdError

BURST_SECONDS = 2.0
"""How many seconds' worth of calls may come at once after a pause."""
MAX_BUCKETS = 4096


class CallLimit:
    """A token bucket for each caller (Turner 1986): it fills steadily and a call empties it by one.

    https://doi.org/10.1109/MCOM.1986.1092946
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._capacity = max(1.0, BURST_SECONDS * per_second)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        """What was in the bucket, and when."""

    def take(self, name: str) -> bool:
        """Whether ``name`` may make a call now; if so, it counts."""
        now = self._clock()
        level = self._level(name, now)
        allowed = level >= 1.0
        self._buckets[name] = (level - 1.0 if allowed else level, now)
        if len(self._buckets) > MAX_BUCKETS:
            self._forget_full_ones(now)
        return allowed

    def _level(self, name: str, now: float) -> float:
        level, when = self._buckets.get(name, (self._capacity, now))
        return min(self._capacity, level + (now - when) * self._per_second)

    def _forget_full_ones(self, now: float) -> None:
        full = [name for name in self._buckets if self._level(name, now) >= self._capacity]
        for name in full:
            del self._buckets[name]


class PlaceLimit:
    """At most ``per_host`` calls of one host at once, so that it does not take every place."""

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host
        self._taken: Counter[str] = Counter()

    @contextlib.contextmanager
    def place(self, host: str) -> Iterator[None]:
        """A place for one call. Raises QuantdError TOO_MANY_CALLS when there is none."""
        if self._taken[host] >= self._per_host:
            raise QuantdError(
                reason="TOO_MANY_CALLS",
                kind="exhausted",
                message=f"{self._per_host} calls for health go on from this host already",
                remedy="end some of them first; one watch for each connection is enough",
            )
        self._taken[host] += 1
        try:
            yield
        finally:
            self._taken[host] -= 1
            if not self._taken[host]:
                del self._taken[host]
