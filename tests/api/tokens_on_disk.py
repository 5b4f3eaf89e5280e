"""Token files for these tests."""

from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path

EXPIRED = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


def token_of(name: str) -> str:
    """The token of the entry ``name``."""
    return f"token-of-{name}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def entry(
    name: str,
    role: str = "read",
    *,
    sources: list[Path] | None = None,
    outputs: list[Path] | None = None,
    expires: dt.datetime | None = None,
    is_certificate: bool = False,
) -> str:
    """One entry."""
    lines = ["[[certificate]]" if is_certificate else "[[token]]", f'name = "{name}"']
    if not is_certificate:
        lines.append(f'sha256 = "{hashlib.sha256(token_of(name).encode()).hexdigest()}"')
    lines.append(f'role = "{role}"')
    if sources is not None:
        lines.append(f"source_roots = {[str(path) for path in sources]}")
    if outputs is not None:
        lines.append(f"output_roots = {[str(path) for path in outputs]}")
    if expires is not None:
        lines.append(f"expires = {expires.isoformat()}")
    return "\n".join(lines) + "\n"


def write(path: Path, *entries: str) -> Path:
    """A token file that nobody else can read."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text("\n".join(entries))
    return path


def bearing(name: str) -> tuple[tuple[str, str], ...]:
    """Metadata with the token of ``name``."""
    return (("authorization", f"Bearer {token_of(name)}"),)
