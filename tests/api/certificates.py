"""Real certificates, made by openssl."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest


@dataclass(frozen=True)
class Pair:
    """A private key and its certificate, as files."""

    key: Path
    certificate: Path

    def credentials(self, authority: Path) -> grpc.ChannelCredentials:
        """Of a client that shows this certificate and trusts an authority."""
        return grpc.ssl_channel_credentials(
            authority.read_bytes(), self.key.read_bytes(), self.certificate.read_bytes()
        )


class Authority:
    """Signs certificates; ``certificate`` is what to trust."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl makes the certificates")
        self._folder = folder
        self._own = Pair(folder / f"{name}.key", folder / f"{name}.pem")
        _openssl(
            *("req", "-x509", *NEW_KEY, "-days", "2", "-subj", f"/CN={name}"),
            *("-keyout", self._own.key, "-out", self._own.certificate),
        )

    @property
    def certificate(self) -> Path:
        return self._own.certificate

    def issue(self, name: str, *, subject: str | None = None) -> Pair:
        """A key with a certificate for this host, of the common name ``name``."""
        pair = Pair(self._folder / f"{name}.key", self._folder / f"{name}.pem")
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        _openssl(
            *("req", *NEW_KEY, "-subj", subject or f"/CN={name}"),
            *("-keyout", pair.key, "-out", request),
        )
        _openssl(
            *("x509", "-req", "-days", "1", "-in", request, "-extfile", extensions),
            *("-CA", self._own.certificate, "-CAkey", self._own.key, "-CAcreateserial"),
            *("-out", pair.certificate),
        )
        pair.key.chmod(0o600)
        return pair


NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(("openssl", *map(str, arguments)), check=True, capture_output=True)
