"""The file of ``--tokens``: who may call, by token or by certificate, and what each may do.

It is TOML. A token is known by its SHA-256 alone, so the file lets nobody in who reads it; a token
has 256 random bits, so no salt and no slow hash is needed. ``quantd token new`` writes an entry::

    [[token]]
    name = "ci"
    sha256 = "<64 hexadecimal digits>"
    role = "submit"                       # read, submit or admin
    source_roots = ["/models/team"]       # optional; each below a root of the server
    output_roots = ["/models/team/out"]
    expires = 2027-01-01T00:00:00Z        # optional

    [[certificate]]                       # with --client-ca, for callers without a token
    name = "scheduler.example.org"        # the certificate's common name
    role = "read"                         # and as above
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import secrets
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec

from quantd_server.api.identity import Identity, Role
from quantd_server.api.secret_file import file_state, read_secret
from quantd_server.errors import QuantdError, quoted
from quantd_server.planning.roots import Roots

OPTION = "--tokens"
TOKEN_PREFIX = "quantd_"  # noqa: S105 - lets scanners for leaked secrets find one
TOKEN_BYTES = 32

NAME_PATTERN = r"\A[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z"
Folder = Annotated[str, msgspec.Meta(pattern=r"\A/[^\x00]*\Z")]


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every entry has."""

    name: str
    role: Role
    source_roots: tuple[Folder, ...] | None = None
    output_roots: tuple[Folder, ...] | None = None
    expires: Annotated[dt.datetime, msgspec.Meta(tz=True)] | None = None


class TokenEntry(Entry, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token."""

    name: Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
    sha256: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class CertificateEntry(Entry, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A client certificate."""

    name: Annotated[str, msgspec.Meta(pattern=r"\A[^\x00-\x1f]{1,200}\Z")]


class Entries(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    token: tuple[TokenEntry, ...] = ()
    certificate: tuple[CertificateEntry, ...] = ()


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """An entry whose folders are looked up: links that are made later lead nowhere else."""

    identity: Identity
    sha256: str
    """Of the token; empty for a certificate."""
    expires: dt.datetime | None


class TokenFile:
    """The entries as they are in the file now: it is read again whenever it has changed.

    A change that cannot be understood is logged, and the entries before it stay in force: an
    operator's slip shuts nobody out, and whoever wants to shut somebody out sees the error.
    """

    def __init__(
        self,
        path: str,
        server_roots: Roots,
        log: Callable[..., None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises QuantdError TOKEN_FILE_INVALID, or as ``read_secret`` does."""
        self._path = path
        self._server_roots = server_roots
        self._log = log
        self._clock = clock
        self._state = file_state(path)
        self._known = self._read()

    def of_token(self, token: str) -> Identity:
        """Whose token it is. Raises QuantdError TOKEN_INVALID or CREDENTIALS_EXPIRED."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        found = None
        for known in self._current():  # to the end, so that the time it takes tells nothing
            if hmac.compare_digest(known.sha256, digest):
                found = known
        if found is None:
            raise token_invalid("the token is none of this server's")
        return self._identity(found)

    def of_certificate(self, name: str) -> Identity:
        """Who has the certificate. Raises QuantdError CERTIFICATE_UNKNOWN or CREDENTIALS_EXPIRED.

        ``name`` is its common name; that it is genuine was checked before.
        """
        for known in self._current():
            if not known.sha256 and known.identity.name == name:
                return self._identity(known)
        raise QuantdError(
            reason="CERTIFICATE_UNKNOWN",
            kind="unauthenticated",
            message=f"the client certificate of {quoted(name)} is genuine, but the server has no "
            "entry for it",
            remedy="ask the operator for a [[certificate]] entry, or send a token",
        )

    def _current(self) -> tuple[Known, ...]:
        state = file_state(self._path)
        if state != self._state:
            self._state = state
            try:
                self._known = self._read()
            except QuantdError as error:
                self._log(
                    "tokens.rejected",
                    level="error",
                    reason=error.reason,
                    message=f"{error.message}; the tokens read before stay in force",
                )
            else:
                self._log("tokens.read", entries=len(self._known))
        return self._known

    def _read(self) -> tuple[Known, ...]:
        entries = entries_in(read_secret(self._path, OPTION))
        return tuple(
            Known(
                identity=Identity(
                    name=entry.name, role=entry.role, roots=_confined(entry, self._server_roots)
                ),
                sha256=entry.sha256 if isinstance(entry, TokenEntry) else "",
                expires=entry.expires,
            )
            for entry in (*entries.token, *entries.certificate)
        )

    def _identity(self, known: Known) -> Identity:
        if known.expires is not None and known.expires.timestamp() <= self._clock():
            raise QuantdError(
                reason="CREDENTIALS_EXPIRED",
                kind="unauthenticated",
                message=f"the credentials of {known.identity.name} expired on "
                f"{known.expires.isoformat()}",
                remedy="ask the operator for new ones",
            )
        return known.identity


def entries_in(data: bytes) -> Entries:
    """The entries of a token file. Raises QuantdError TOKEN_FILE_INVALID."""
    try:
        entries = msgspec.convert(tomllib.loads(data.decode("utf-8")), Entries)
    except UnicodeDecodeError:
        raise _invalid("it is no UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise _invalid(f"it is no TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except RecursionError:
        raise _invalid("it is nested too deeply") from None
    every = (*entries.token, *entries.certificate)
    names = [entry.name for entry in every]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise _invalid(f"there are two entries of the name {quoted(twice)}")
    digests = [entry.sha256 for entry in entries.token]
    if len(set(digests)) < len(digests):
        raise _invalid("two entries have the same sha256")
    for entry in every:
        if entry.role == "admin" and (entry.source_roots, entry.output_roots) != (None, None):
            raise _invalid(f"{quoted(entry.name)} is admin, for which no roots can be set")
    return entries


def new_token() -> str:
    """A random token."""
    return TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def token_invalid(message: str) -> QuantdError:
    """The error for a header that holds no token of ours; it never repeats what it holds."""
    return QuantdError(
        reason="TOKEN_INVALID",
        kind="unauthenticated",
        message=message,
        remedy='send "authorization: Bearer TOKEN" once, with a token that the operator gave you',
    )


def _confined(entry: Entry, server: Roots) -> Roots | None:
    """The folders of an entry. Raises QuantdError TOKEN_FILE_INVALID when they are not ours."""
    if entry.source_roots is None and entry.output_roots is None:
        return None
    own = Roots.of(
        server.sources if entry.source_roots is None else entry.source_roots,
        server.outputs if entry.output_roots is None else entry.output_roots,
    )
    for kind, folders, allowed in (
        ("source", own.sources, server.sources),
        ("output", own.outputs, server.outputs),
    ):
        if not all(_is_below(folder, allowed) for folder in folders):
            raise _invalid(
                f"a {kind} root of {quoted(entry.name)} is not below a {kind} root of the server"
            )
    return own


def _is_below(folder: str, roots: tuple[str, ...]) -> bool:
    return any(Path(folder).is_relative_to(root) for root in roots)


def _invalid(why: str) -> QuantdError:
    return QuantdError(
        reason="TOKEN_FILE_INVALID",
        kind="precondition",
        message=f"the file of {OPTION} is not understood: {why}",
        remedy="write entries as `quantd token new` prints them",
    )
