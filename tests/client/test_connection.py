"""The way to the server: addresses, tokens, TLS."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from tests.client.fake_server import FakeServer

import quantd
from quantd import v1

TOKEN = "secret"  # noqa: S105 - of a fake server


def test_token_and_metadata_go_with_every_call(server):
    with quantd.Client(server.address, token=TOKEN, metadata={"x-team": "a"}) as client:
        client.capabilities()
        assert server.metadata["authorization"] == f"Bearer {TOKEN}"
        assert server.metadata["x-team"] == "a"
        list(client.quantize("/m", "/o", quantd.gguf()))
        assert server.metadata["authorization"] == f"Bearer {TOKEN}"


def test_a_token_never_crosses_the_network_in_clear():
    with pytest.raises(ValueError, match="in clear"):
        quantd.Client("example.org:50051", token=TOKEN)
    quantd.Client("example.org:50051", token=TOKEN, tls=True).close()
    quantd.Client("example.org:50051", token=TOKEN, tls=False).close()
    quantd.Client("localhost:50051", token=TOKEN).close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"address": "http://localhost:50051"}, "is a URL"),
        ({"address": "h:1", "tls": False, "root_certificates": b"x"}, "contradicts"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ValueError, match=message):
        quantd.Client(**settings)


@pytest.fixture
def key_and_certificate(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return key, certificate


@pytest.fixture
def tls_address(key_and_certificate):
    """A server that asks for a certificate, too."""
    key, certificate = (path.read_bytes() for path in key_and_certificate)
    credentials = grpc.ssl_server_credentials(
        [(key, certificate)], root_certificates=certificate, require_client_auth=True
    )
    server = grpc.server(ThreadPoolExecutor(2))
    v1.add_QuantizationServiceServicer_to_server(FakeServer("unused"), server)
    port = server.add_secure_port("localhost:0", credentials)
    server.start()
    yield f"localhost:{port}"
    server.stop(None).wait()


async def test_tls_with_certificates_on_both_sides(tls_address, key_and_certificate):
    certificate = key_and_certificate[1]
    settings = {
        "root_certificates": certificate,  # a path
        "client_certificate": tuple(path.read_bytes() for path in key_and_certificate),
        "token": TOKEN,
    }
    with quantd.Client(tls_address, **settings) as client:
        assert client.capabilities().server.version == "0.0.0"
    async with quantd.AsyncClient(tls_address, **settings) as async_client:
        assert (await async_client.capabilities()).server.version == "0.0.0"


def test_tls_without_what_the_server_asks_for(tls_address, key_and_certificate):
    with (
        quantd.Client(tls_address, root_certificates=key_and_certificate[1]) as client,
        pytest.raises(quantd.UnavailableError),
    ):
        client.capabilities()


def test_the_version_is_that_of_the_distribution():
    import tomllib

    project = Path(__file__).parents[2] / "clients/python/pyproject.toml"
    assert tomllib.loads(project.read_text())["project"]["version"] == quantd.__version__
