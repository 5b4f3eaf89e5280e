"""The replayable log of one job: many readers, each at its own place."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from quantd_server.jobs.job import JobEvent


class EventLog:
    """Keeps the newest ``limit`` events of a job. All methods belong to the event loop."""

    def __init__(self, limit: int, *, last_sequence: int = 0) -> None:
        """``last_sequence``: of a job from the store, whose events are filled in when needed."""
        self._events: deque[JobEvent] = deque(maxlen=limit)
        self._changed = asyncio.Event()
        self.last_sequence = last_sequence
        self.is_filled = last_sequence == 0

    def fill(self, events: Iterable[JobEvent]) -> None:
        """Put in the stored events, up to ``last_sequence``."""
        self._events.clear()
        self._events.extend(events)
        self.is_filled = True

    def append(self, event: JobEvent) -> None:
        """Add the event, whose sequence has to be the next one, and wake all readers."""
        if event.sequence != self.last_sequence + 1:
            raise ValueError(f"event {event.sequence} cannot follow {self.last_sequence}")
        self._events.append(event)
        self.last_sequence = event.sequence
        self.wake()

    def after(self, sequence: int) -> list[JobEvent] | None:
        """The events after ``sequence``; None when some of them are no longer kept."""
        missing = self.last_sequence - sequence
        if missing > len(self._events):
            return None
        return list(self._events)[len(self._events) - missing :]

    def wake(self) -> None:
        """Wake all readers without adding anything."""
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def changed(self) -> asyncio.Event:
        """Set by the next ``append`` or ``wake``. Take it before reading, wait for it after."""
        return self._changed
