"""Who calls, and what they may do with jobs."""

from __future__ import annotations

from typing import Literal

import msgspec

from quantd_server.jobs.job import Job
from quantd_server.planning.roots import Roots

Role = Literal["read", "submit", "admin"]
ROLES: tuple[Role, ...] = ("read", "submit", "admin")
"""Each may do what the ones before it may."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """A caller."""

    name: str
    """That of the token's entry, or of the certificate; empty where nobody has to say theirs."""
    role: Role
    roots: Roots | None = None
    """The folders it is confined to; None for all those of the server."""

    def has(self, role: Role) -> bool:
        """Whether it may do what ``role`` may."""
        return ROLES.index(self.role) >= ROLES.index(role)

    @property
    def sees_jobs_of(self) -> str | None:
        """The owner of the jobs that it may know of: a caller with folders of its own learns of no
        others. None for every owner.
        """
        return None if self.roots is None else self.name

    def sees(self, job: Job) -> bool:
        """Whether it may know of the job."""
        return self.sees_jobs_of in (None, job.owner)

    def may_end(self, job: Job) -> bool:
        """Whether it may cancel and delete the job."""
        return self.role == "admin" or (self.has("submit") and job.owner == self.name)


ANONYMOUS = Identity(name="", role="admin")
"""Every caller of a server that asks for neither tokens nor certificates."""
NOBODY = Identity(name="", role="read")
"""Who asks for health."""
