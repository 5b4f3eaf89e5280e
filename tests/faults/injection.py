"""Arms faults in a server and its workers; ``injected/sitecustomize.py`` carries them out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

INJECTED = Path(__file__).parent / "injected"


class Faults:
    """The faults that are armed, each a file that goes when it has happened."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Servers that are started from now on look into ``folder``."""
        self._folder = folder
        folder.mkdir()
        monkeypatch.syspath_prepend(INJECTED)  # `server_process` hands it on
        monkeypatch.setenv("PYTHON_INJECTED_FAULTS", str(folder))

    def arm(
        self, process: str, call: str, fault: str, *, calls: int = 1, when: str = "before"
    ) -> None:
        """Have a call of a process end in ``fault``: KILL, or the name of an error number.

        Args:
            process: "server" or "worker".
            call: A function of ``os``, or "commit" for one of the store.
            fault: Happens once.
            calls: At which call, counted from now on.
            when: "before" or "after" the call.
        """
        path = self._folder / f"{process}.{call}.{when}"
        waiting = path.with_suffix(".new")
        waiting.write_text(json.dumps({"calls": calls, "fault": fault}))
        os.replace(waiting, path)

    @property
    def armed(self) -> list[str]:
        """What has not happened yet."""
        return sorted(path.name for path in self._folder.iterdir())

    def disarm(self) -> None:
        for path in self._folder.iterdir():
            path.unlink(missing_ok=True)
