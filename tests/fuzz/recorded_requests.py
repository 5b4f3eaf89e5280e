"""The requests of the conformance vectors, for targets to begin with."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).resolve().parent.parent / "conformance" / "vectors"


@functools.cache
def recorded_requests() -> Sequence[tuple[str, dict[str, Any]]]:
    """Method ("package.Service/Method") and request, as JSON of the spec with ``${names}``."""
    return tuple(
        (step["call"], step["request"])
        for path in sorted(VECTORS.glob("*.json"))
        for vector in json.loads(path.read_text(encoding="utf-8"))
        for step in vector["steps"]
        if "call" in step and isinstance(step.get("request"), dict)
    )
