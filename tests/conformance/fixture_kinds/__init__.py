"""The fixtures by kind: each module has `FIXTURES`, what to make by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Maker = Callable[[Path], object]
"""Makes a fixture at a path."""
