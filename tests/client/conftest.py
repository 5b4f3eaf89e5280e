"""Fixtures: a fake server on a socket of its own, and clients that reconnect quickly."""

from __future__ import annotations

import pytest
from tests.client.fake_server import FakeServer

import quantd

QUICK = quantd.Reconnect(initial_delay=0.001, max_delay=0.01, timeout=5.0)


@pytest.fixture
def server(tmp_path_factory):
    # Not tmp_path: its name may exceed the 107 bytes of a socket's path.
    with FakeServer(tmp_path_factory.mktemp("s")) as fake:
        yield fake


@pytest.fixture
def client(server):
    with quantd.Client(server.address, reconnect=QUICK) as made:
        yield made


@pytest.fixture
async def async_client(server):
    async with quantd.AsyncClient(server.address, reconnect=QUICK) as made:
        yield made
