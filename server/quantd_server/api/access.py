"""Whether a call may be made: who calls, what their role allows, and how often.

What is not written down here as allowed is not: a method that is in neither table needs an admin.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any

from quantd_server.api.call_limit import CallLimit, PlaceLimit
from quantd_server.api.identity import ANONYMOUS, NOBODY, Identity, Role
from quantd_server.api.log import Log
from quantd_server.api.token_file import TokenFile, token_invalid
from quantd_server.errors import QuantdError
from quantd_server.planning.roots import Roots
from quantd_server.settings import Settings

HEALTH = "/grpc.health.v1.Health/"
REFLECTION = "/grpc.reflection."
ROLES_OF_METHODS: dict[str, Role] = {
    "/quantd.v1.QuantizationService/GetCapabilities": "read",
    "/quantd.v1.QuantizationService/InspectCheckpoint": "read",
    "/quantd.v1.QuantizationService/ParseConfig": "read",
    "/quantd.v1.QuantizationService/PlanQuantization": "read",
    "/quantd.v1.QuantizationService/Quantize": "submit",
    "/quantd.v1.JobService/GetJob": "read",
    "/quantd.v1.JobService/ListJobs": "read",
    "/quantd.v1.JobService/WatchJob": "read",
    "/quantd.v1.JobService/CancelJob": "submit",
    "/quantd.v1.JobService/DeleteJob": "submit",
}
AUTHORIZATION = "authorization"
MAX_HEALTH_CALLS = 32
"""Of one host at once, where callers need credentials: health needs none, and watching it takes a
place for as long as the watcher likes."""
BEARER = re.compile(r"(?i:bearer) +([\x21-\x7e]{1,512}) *")


class Access:
    """Decides about every call, by its metadata and its connection."""

    def __init__(
        self, *, tokens: TokenFile | None, certificates: bool, limit: CallLimit | None
    ) -> None:
        """``certificates``: whether every connection comes with a client certificate."""
        self._tokens = tokens
        self._certificates = certificates
        self._limit = limit
        self._health = PlaceLimit(MAX_HEALTH_CALLS)

    @classmethod
    def of(cls, settings: Settings, log: Log) -> Access:
        """The access that an operator allows. Raises QuantdError as ``TokenFile`` does."""
        roots = Roots.of(settings.source_roots, settings.output_roots)
        rate = settings.max_calls_per_second
        return cls(
            tokens=TokenFile(settings.tokens, roots, log) if settings.tokens else None,
            certificates=settings.client_ca is not None,
            limit=CallLimit(rate) if rate else None,
        )

    def caller_of(self, method: str, context: Any) -> Identity:
        """Who calls.

        Raises QuantdError CREDENTIALS_MISSING, CREDENTIALS_EXPIRED, TOKEN_INVALID or
        CERTIFICATE_UNKNOWN.
        """
        if method.startswith(HEALTH):
            return NOBODY
        if self._tokens is None and not self._certificates:
            return ANONYMOUS
        metadata: Any = context.invocation_metadata() or ()
        headers = [value for key, value in metadata if key == AUTHORIZATION]
        if self._tokens is not None and headers:
            return self._tokens.of_token(_bearer(headers))
        name = _certificate_name(context) if self._certificates else ""
        if name and self._tokens is not None:
            return self._tokens.of_certificate(name)
        if name:
            return Identity(name=name, role="admin")
        if self._tokens is not None:
            raise _missing("the call has no token", 'send "authorization: Bearer TOKEN" with it')
        raise _missing(
            "the connection has no client certificate with a name",
            "use one with a common name, and TLS; through a unix socket no certificate comes",
        )

    def check(self, method: str, identity: Identity, *, is_served: bool) -> None:
        """Whether the caller may make this call, and now.

        Raises QuantdError ROLE_TOO_SMALL or TOO_MANY_CALLS.
        """
        if method.startswith(HEALTH):
            return
        # First, so that refused calls count, too.
        if self._limit is not None and identity.name and not self._limit.take(identity.name):
            raise QuantdError(
                reason="TOO_MANY_CALLS",
                kind="exhausted",
                message=f"{identity.name} calls more often than the server allows",
                remedy="wait as RetryInfo says; watch a job instead of asking for it again",
            )
        if is_served:
            role = "read" if method.startswith(REFLECTION) else ROLES_OF_METHODS.get(method)
            _check_role(identity, role or "admin")

    def check_again(self, method: str, before: Identity, context: Any) -> None:
        """Whether a call that goes on may still do so: its credentials can be taken away meanwhile.

        Raises QuantdError as ``caller_of`` does, or CREDENTIALS_CHANGED when they give other rights
        than ``before``: the next call is judged by those.
        """
        if self.caller_of(method, context) != before:
            raise QuantdError(
                reason="CREDENTIALS_CHANGED",
                kind="unavailable",
                message=f"the operator has changed what {before.name} may do",
                remedy="call again; a watch goes on after the last sequence seen",
            )

    def place(self, method: str, context: Any) -> contextlib.AbstractContextManager[None]:
        """What a call has to hold while it goes on. Entering raises QuantdError TOO_MANY_CALLS."""
        if not method.startswith(HEALTH) or (self._tokens is None and not self._certificates):
            return contextlib.nullcontext()
        return self._health.place(context.peer().rpartition(":")[0])


def _missing(message: str, remedy: str) -> QuantdError:
    return QuantdError(
        reason="CREDENTIALS_MISSING", kind="unauthenticated", message=message, remedy=remedy
    )


def _check_role(identity: Identity, role: Role) -> None:
    if not identity.has(role):
        raise QuantdError(
            reason="ROLE_TOO_SMALL",
            kind="denied",
            message=f"{identity.name} has the role {identity.role}; this needs {role}",
            remedy="ask the operator for a token of that role",
        )


def _bearer(headers: list[Any]) -> str:
    """The token in the headers. Raises QuantdError TOKEN_INVALID."""
    if len(headers) != 1:
        raise token_invalid(f"there are {len(headers)} authorization headers")
    found = BEARER.fullmatch(headers[0]) if isinstance(headers[0], str) else None
    if found is None:
        raise token_invalid("the authorization header holds no bearer token")
    return found[1]


def _certificate_name(context: Any) -> str:
    """Common name of the client's certificate; empty when it has none, or more than one."""
    names: Any = context.auth_context().get("x509_common_name") or ()
    return names[0].decode("utf-8", "replace") if len(names) == 1 else ""
