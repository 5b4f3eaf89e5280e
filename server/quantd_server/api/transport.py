"""How calls reach the server: encrypted, and from whom; and what is too open to start with.

Certificates are read at start and looked at again at every new connection, so that renewed ones
are used without a restart. What was renewed in part, or wrongly, is logged and not used.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, cast

import grpc
import msgspec

from quantd_server.api.addresses import is_local
from quantd_server.api.secret_file import FileState, file_state, read_public, read_secret
from quantd_server.errors import QuantdError
from quantd_server.settings import Settings

CERTIFICATE, KEY, CLIENT_CA = "--tls-certificate", "--tls-key", "--client-ca"


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Where certificates and key are."""

    certificate: str
    key: str
    client_ca: str | None

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(path for path in (self.certificate, self.key, self.client_ca) if path)


def check_exposure(settings: Settings) -> None:
    """Refuse addresses that strangers can reach unless they are kept out, or are meant.

    Raises QuantdError EXPOSED_WITHOUT_CREDENTIALS or EXPOSED_WITHOUT_ENCRYPTION.
    """
    missing = missing_protection(settings)
    if missing is not None and not settings.insecure:
        raise missing


def missing_protection(settings: Settings) -> QuantdError | None:
    """What an address beyond this host lacks."""
    exposed = [address for address in settings.listen if not is_local(address)]
    if not exposed:
        return None
    where = ", ".join(exposed)
    if settings.tokens is None and settings.client_ca is None:
        return QuantdError(
            reason="EXPOSED_WITHOUT_CREDENTIALS",
            kind="precondition",
            message=f"whoever reaches {where} could read the source roots and write to the output "
            "roots: calls need no credentials",
            remedy=f"set --tokens or {CLIENT_CA}, listen on 127.0.0.1 or on a unix socket, or "
            "allow it with --insecure",
        )
    if settings.tls_certificate is None:
        return QuantdError(
            reason="EXPOSED_WITHOUT_ENCRYPTION",
            kind="precondition",
            message=f"tokens would cross the network to {where} in clear",
            remedy=f"set {CERTIFICATE} and {KEY}, listen on 127.0.0.1 behind a proxy that ends "
            "TLS, or allow it with --insecure",
        )
    return None


def server_credentials(
    settings: Settings, log: Callable[..., None]
) -> grpc.ServerCredentials | None:
    """What one address proves the server with, and asks of clients; None for plain text.

    Raises QuantdError TLS_OPTIONS_INCOMPLETE, TLS_FILE_INVALID, or as ``read_secret`` does.
    """
    files = tls_files(settings)
    if files is None:
        return None
    renewal = _Renewal(files, log)
    return grpc.dynamic_ssl_server_credentials(
        renewal.first,
        cast("Any", renewal.renewed),  # the stubs do not know that None means no change
        require_client_authentication=files.client_ca is not None,
    )


def tls_files(settings: Settings) -> TlsFiles | None:
    """The files that the settings name. Raises QuantdError TLS_OPTIONS_INCOMPLETE."""
    certificate, key, client_ca = settings.tls_certificate, settings.tls_key, settings.client_ca
    if certificate is not None and key is not None:
        return TlsFiles(certificate=certificate, key=key, client_ca=client_ca)
    if certificate is None and key is None and client_ca is None:
        return None
    missing = [name for name, path in ((CERTIFICATE, certificate), (KEY, key)) if path is None]
    raise QuantdError(
        reason="TLS_OPTIONS_INCOMPLETE",
        kind="precondition",
        message=f"TLS needs a certificate and its key, and {' and '.join(missing)} "
        f"{'is' if len(missing) == 1 else 'are'} missing",
        remedy=f"set both {CERTIFICATE} and {KEY}; {CLIENT_CA} adds to them",
    )


class _Renewal:
    """The certificates of one address. ``renewed`` is called by threads of grpc, one at a time."""

    def __init__(self, files: TlsFiles, log: Callable[..., None]) -> None:
        self._files = files
        self._log = log
        self._states = self._look()
        self.first = _configuration(files)

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """What new connections shall use from now on; None for no change."""
        states = self._look()
        if states == self._states:
            return None
        self._states = states
        try:
            configuration = _configuration(self._files)
        except QuantdError as error:
            self._log("tls.rejected", level="error", reason=error.reason, message=error.message)
            return None
        self._log("tls.renewed")
        return configuration

    def _look(self) -> tuple[FileState | None, ...]:
        return tuple(file_state(path) for path in self._files.paths)


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    certificate = read_public(files.certificate, CERTIFICATE)
    key = read_secret(files.key, KEY)
    authority = None if files.client_ca is None else read_public(files.client_ca, CLIENT_CA)
    # grpc takes anything and fails at the first connection; the standard library says it now.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(files.certificate, files.key, password=lambda: b"")
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        raise _invalid(
            f"the files of {CERTIFICATE} and {KEY} are no PEM certificate and its private key",
            "write the chain, the server's certificate first, and the key without a password",
        ) from None
    if authority is not None:
        try:
            context.load_verify_locations(cadata=authority.decode("ascii"))
        except (OSError, ValueError):
            raise _invalid(
                f"the file of {CLIENT_CA} holds no PEM certificates",
                "write the certificates of the authorities that sign those of clients",
            ) from None
    return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)


def _invalid(message: str, remedy: str) -> QuantdError:
    return QuantdError(
        reason="TLS_FILE_INVALID", kind="precondition", message=message, remedy=remedy
    )
