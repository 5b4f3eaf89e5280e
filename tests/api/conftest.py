from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.api.servers import Running, ScriptedJobs, ScriptedPlanner, running


@pytest_asyncio.fixture
async def scripted(tmp_path) -> AsyncIterator[Running]:
    """A server with a planner that finds nothing and jobs of three events."""
    async with running(tmp_path, planner=ScriptedPlanner(), jobs=ScriptedJobs()) as server:
        yield server


@pytest.fixture
def jobs(scripted: Running) -> ScriptedJobs:
    return scripted.services.jobs  # type: ignore[return-value]
