"""Work in a thread, and what becomes of it."""

from __future__ import annotations

import threading
import time

import pytest

from quantd_server.engine.background import in_background


class Stopped(Exception):
    pass


def test_items_come_in_their_order():
    assert list(in_background(range(100), lambda: None)) == list(range(100))


def test_an_error_of_the_thread_is_raised_after_the_items_before_it():
    def items():
        yield 1
        raise Stopped

    found = in_background(items(), lambda: None)
    assert next(found) == 1
    with pytest.raises(Stopped):
        next(found)


def test_ticks_go_on_while_an_item_takes_long():
    release = threading.Event()
    ticks = []

    def tick():
        ticks.append(None)
        if len(ticks) == 5:
            release.set()

    def items():
        assert release.wait(30)
        yield "late"

    assert list(in_background(items(), tick, every=0.01)) == ["late"]
    assert len(ticks) >= 5


def test_a_tick_that_raises_does_not_wait_for_the_thread():
    release = threading.Event()

    def items():
        release.wait(30)
        yield None

    def tick():
        raise Stopped

    started = time.monotonic()
    with pytest.raises(Stopped):
        next(in_background(items(), tick, every=0.01))
    assert time.monotonic() - started < 20
    release.set()


def test_a_thread_that_is_not_wanted_any_more_ends():
    ended = threading.Event()

    def items():
        try:
            while True:
                yield None
        finally:
            ended.set()

    found = in_background(items(), lambda: None, every=0.01)
    next(found)
    found.close()
    assert ended.wait(30)
    assert "background" not in {thread.name for thread in threading.enumerate()}
