"""Which paths a request may name: the folders that the operator allowed, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from quantd_server.errors import QuantdError, quoted

SOURCE = "spec.source_uri"


class Roots(msgspec.Struct, frozen=True, kw_only=True):
    """Allowed folders, as absolute paths without symbolic links."""

    sources: tuple[str, ...]
    outputs: tuple[str, ...]

    @classmethod
    def of(cls, sources: tuple[str, ...], outputs: tuple[str, ...]) -> Roots:
        """Roots from paths as an operator writes them."""
        return cls(
            sources=tuple(os.path.realpath(path) for path in sources),
            outputs=tuple(os.path.realpath(path) for path in outputs),
        )

    def source(self, uri: str, field: str = SOURCE) -> Path:
        """The real path of a source, which exists.

        Raises QuantdError URI_UNSUPPORTED, PATH_OUTSIDE_ROOTS or SOURCE_NOT_FOUND.
        """
        path = Path(os.path.realpath(_local_path(uri, field)))
        _check_below(path, self.sources, field, "source")
        if not os.path.exists(path):  # unlike Path.exists, also where a name is too long
            wanted = "a checkpoint directory or a .gguf file" if field == SOURCE else "a file"
            raise QuantdError(
                reason="SOURCE_NOT_FOUND",
                field=field,
                kind="not_found",
                message=f"nothing is at {quoted(uri)}",
                remedy=f"name {wanted} that exists on the server",
            )
        return path

    def output(self, uri: str, field: str = "spec.output_uri") -> Path:
        """The real path of an output, whose last component need not exist.

        Raises QuantdError URI_UNSUPPORTED or PATH_OUTSIDE_ROOTS.
        """
        path = Path(os.path.realpath(_local_path(uri, field)))
        _check_below(path, self.outputs, field, "output")
        if str(path) in self.outputs:
            raise QuantdError(
                reason="PATH_OUTSIDE_ROOTS",
                field=field,
                message=f"{quoted(uri)} is an output root itself",
                remedy="name a path below it",
            )
        return path


def _local_path(uri: str, field: str) -> str:
    """The path that a `file:` URI or a plain absolute path means."""
    if "\0" in uri:
        raise _unsupported(uri, field, "has a NUL character")
    if uri.startswith("/"):
        return uri
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise _unsupported(uri, field, "is no URI") from None
    if parts.scheme != "file":
        raise _unsupported(uri, field, "is neither a file: URI nor an absolute path")
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
        raise _unsupported(uri, field, "does not name an absolute path of this host")
    if parts.query or parts.fragment:
        raise _unsupported(uri, field, "has a query or a fragment")
    return path


def _unsupported(uri: str, field: str, fault: str) -> QuantdError:
    return QuantdError(
        reason="URI_UNSUPPORTED",
        field=field,
        message=f"{quoted(uri)} {fault}",
        remedy="use file:///path or /path, a path on the server",
    )


def _check_below(path: Path, roots: tuple[str, ...], field: str, kind: str) -> None:
    # Said before anything is looked up, so that the answer tells nothing of other folders.
    if not any(path.is_relative_to(root) for root in roots):
        raise QuantdError(
            reason="PATH_OUTSIDE_ROOTS",
            field=field,
            message=f"the path is not below an allowed {kind} root (links are followed)",
            remedy=f"name a path below one of the server's {kind} roots, or start the server with "
            f"--{kind}-root for it",
        )
