"""TLS and client certificates, with real ones; and what is too open to start with."""

from __future__ import annotations

import subprocess

import grpc
import pytest
from tests import tiny_models
from tests.api import tokens_on_disk
from tests.api.certificates import Authority
from tests.api.server_process import COMMAND, environment, server_process
from tests.api.servers import ScriptedJobs, ScriptedPlanner, channel_to, refused, running
from tests.api.tokens_on_disk import bearing, entry

from quantd import v1
from quantd_server.api.transport import check_exposure, server_credentials
from quantd_server.errors import QuantdError
from quantd_server.settings import Settings


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def own(authority):
    """The server's certificate."""
    return authority.issue("server")


@pytest.fixture(scope="module")
def client(authority):
    return authority.issue("client.example")


def tls(pair, **more):
    return {"tls_certificate": str(pair.certificate), "tls_key": str(pair.key), **more}


def serving(tmp_path, credentials, **settings):
    return running(
        tmp_path,
        planner=ScriptedPlanner(),
        jobs=ScriptedJobs(),
        credentials=credentials,
        **settings,
    )


def trusting(authority) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(authority.certificate.read_bytes())


async def listed(channel, metadata=()):
    stub = v1.JobServiceStub(channel)
    return await stub.ListJobs(v1.ListJobsRequest(), metadata=metadata, timeout=20)


async def unreachable(address, credentials=None):
    async with channel_to(address, credentials) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await listed(channel)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_calls_are_encrypted(tmp_path, authority, own):
    async with serving(tmp_path, trusting(authority), **tls(own)) as server:
        await listed(server.channel)
        await unreachable(server.address)  # plain text
        (tmp_path / "other").mkdir()
        await unreachable(server.address, trusting(Authority(tmp_path / "other", "other")))


async def test_a_unix_socket_is_no_way_around(tmp_path, authority, own):
    settings = tls(own, client_ca=str(authority.certificate), listen=(f"unix:{tmp_path}/s",))
    async with serving(tmp_path, None, **settings) as server:
        refusal = await refused(v1.JobServiceStub(server.channel).ListJobs(v1.ListJobsRequest()))
        assert refusal.reason == "CREDENTIALS_MISSING"
    tokens = tokens_on_disk.write(tmp_path / "tokens.toml", entry("reader"))
    async with serving(tmp_path, None, **settings, tokens=str(tokens)) as server:
        refusal = await refused(v1.JobServiceStub(server.channel).ListJobs(v1.ListJobsRequest()))
        assert refusal.reason == "CREDENTIALS_MISSING"
        await listed(server.channel, bearing("reader"))


async def test_a_client_certificate_is_required_and_verified(tmp_path, authority, own, client):
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    stranger = Authority(strangers, "strangers").issue("client.example")
    settings = tls(own, client_ca=str(authority.certificate))
    good = client.credentials(authority.certificate)
    async with serving(tmp_path, good, **settings) as server:
        await listed(server.channel)
        line = await server.logged_call()
        assert (line["caller"], line["code"]) == ("client.example", "OK")
        await unreachable(server.address, trusting(authority))
        await unreachable(server.address, stranger.credentials(authority.certificate))


async def test_certificates_have_roles_too(tmp_path, authority, own, client):
    tokens = tokens_on_disk.write(
        tmp_path / "tokens.toml",
        entry("client.example", "read", is_certificate=True),
        entry("admin", "admin"),
    )
    settings = tls(own, client_ca=str(authority.certificate), tokens=str(tokens))
    good = client.credentials(authority.certificate)
    async with serving(tmp_path, good, **settings) as server:
        await listed(server.channel)
        stub = v1.JobServiceStub(server.channel)
        cancel = v1.CancelJobRequest(name="jobs/none")
        refusal = await refused(stub.CancelJob(cancel))
        assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
        # A token says more than the certificate of the connection.
        refusal = await refused(stub.CancelJob(cancel, metadata=bearing("admin")))
        assert refusal.code is grpc.StatusCode.NOT_FOUND
        refusal = await refused(stub.CancelJob(cancel, metadata=bearing("nobody")))
        assert refusal.reason == "TOKEN_INVALID"
        unknown = authority.issue("unknown.example").credentials(authority.certificate)
        async with channel_to(server.address, unknown) as channel:
            refusal = await refused(v1.JobServiceStub(channel).CancelJob(cancel))
            assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
            assert refusal.reason == "CERTIFICATE_UNKNOWN"


async def test_a_certificate_without_a_name_is_nobody(tmp_path, authority, own):
    nameless = authority.issue("nameless", subject="/O=somebody")
    settings = tls(own, client_ca=str(authority.certificate))
    async with serving(tmp_path, nameless.credentials(authority.certificate), **settings) as server:
        stub = v1.JobServiceStub(server.channel)
        refusal = await refused(stub.ListJobs(v1.ListJobsRequest()))
        assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
        assert refusal.reason == "CREDENTIALS_MISSING"


async def test_renewed_certificates_are_used_without_a_restart(tmp_path, authority, own):
    later = tmp_path / "later"
    later.mkdir()
    successor = Authority(later, "successor")
    renewed = successor.issue("server")
    certificate, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate.write_bytes(own.certificate.read_bytes())
    key.touch(mode=0o600)
    key.write_bytes(own.key.read_bytes())
    settings = {"tls_certificate": str(certificate), "tls_key": str(key)}
    settings["listen"] = ("127.0.0.1:0", "localhost:0")
    async with serving(tmp_path, trusting(authority), **settings) as server:
        await listed(server.channel)
        # Half of the change: the old ones go on.
        certificate.write_bytes(renewed.certificate.read_bytes())
        async with channel_to(server.address, trusting(authority)) as channel:
            await listed(channel)
        assert server.events("tls.rejected")
        key.write_bytes(renewed.key.read_bytes())
        for address in server.bound.addresses:
            async with channel_to(address, trusting(successor)) as channel:
                await listed(channel)
        assert server.events("tls.renewed")
        await listed(server.channel)  # whoever is connected stays so


# -- what a server does not start with -------------------------------------------------------------


def reason_of(call, *arguments):
    with pytest.raises(QuantdError) as error:
        call(*arguments)
    assert error.value.remedy
    return error.value.reason


ANYWHERE = ("127.0.0.1:0", "0.0.0.0:0")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "EXPOSED_WITHOUT_CREDENTIALS"),
        ({"tls_certificate": "c", "tls_key": "k"}, "EXPOSED_WITHOUT_CREDENTIALS"),
        ({"tokens": "t"}, "EXPOSED_WITHOUT_ENCRYPTION"),
        ({"tokens": "t", "listen": ("127.0.0.1.example.org:1",)}, "EXPOSED_WITHOUT_ENCRYPTION"),
    ],
)
def test_an_address_beyond_this_host_needs_credentials_and_encryption(settings, reason):
    settings = {"listen": ANYWHERE, **settings}
    assert reason_of(check_exposure, Settings(**settings)) == reason
    check_exposure(Settings(**settings, insecure=True))


@pytest.mark.parametrize(
    "settings",
    [
        {"listen": ("127.0.0.1:0", "[::1]:0", "localhost:0", "unix:/a")},
        {"listen": ANYWHERE, "tokens": "t", "tls_certificate": "c", "tls_key": "k"},
        {"listen": ANYWHERE, "client_ca": "a", "tls_certificate": "c", "tls_key": "k"},
    ],
)
def test_what_is_safe_enough(settings):
    check_exposure(Settings(**settings))


@pytest.mark.parametrize("missing", ["tls_certificate", "tls_key"])
def test_options_that_belong_together(own, missing):
    settings = tls(own) | {missing: None}
    assert reason_of(server_credentials, Settings(**settings), print) == "TLS_OPTIONS_INCOMPLETE"
    alone = Settings(client_ca=str(own.certificate))
    assert reason_of(server_credentials, alone, print) == "TLS_OPTIONS_INCOMPLETE"


def test_files_that_are_no_certificates(tmp_path, authority, own, client):
    def reason(**settings):
        return reason_of(server_credentials, Settings(**(tls(own) | settings)), print)

    odd, missing = tmp_path / "odd.pem", str(tmp_path / "missing.pem")
    odd.touch(mode=0o600)
    for data in (b"", b"nonsense", b"\xff\xfe", own.certificate.read_bytes()[:200]):
        odd.write_bytes(data)
        for option in ("tls_certificate", "tls_key", "client_ca"):
            assert reason(**{option: str(odd)}) == "TLS_FILE_INVALID"
    for option in ("tls_certificate", "tls_key", "client_ca"):
        assert reason(**{option: missing}) == "SECRET_FILE_UNREADABLE"
    assert reason(tls_key=str(client.key)) == "TLS_FILE_INVALID"  # of another certificate
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "ec", "-aes128", "-passout", "pass:x", "-in", own.key, "-out", locked],
        check=True,
        capture_output=True,
    )
    locked.chmod(0o600)
    assert reason(tls_key=str(locked)) == "TLS_FILE_INVALID"
    odd.write_bytes(own.key.read_bytes())
    odd.chmod(0o644)
    assert reason(tls_key=str(odd)) == "SECRET_FILE_EXPOSED"


def test_a_server_that_is_too_open_does_not_start(tmp_path):
    done = subprocess.run(
        [*COMMAND, "--listen", "0.0.0.0:0", "--source-root", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("quantd serve: whoever reaches 0.0.0.0:0 ")
    assert "(EXPOSED_WITHOUT_CREDENTIALS)" in done.stderr
    assert "--insecure" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_meant_to_be_open_says_so(tmp_path):
    with server_process(tmp_path, "--insecure", listen="0.0.0.0:0") as server:
        assert server.events("exposed")[0]["reason"] == "EXPOSED_WITHOUT_CREDENTIALS"
        assert server.stop() == 0


def test_a_server_as_one_would_expose_it(tmp_path, authority, own):
    team = tmp_path / "team"
    team.mkdir()
    tiny_models.write(team / "model")
    tokens = tokens_on_disk.write(
        tmp_path / "tokens.toml",
        entry("reader"),
        entry("team", "submit", sources=[team], outputs=[team]),
    )
    options = (
        *("--tls-certificate", str(own.certificate), "--tls-key", str(own.key)),
        *("--tokens", str(tokens)),
    )
    with server_process(tmp_path, *options, listen="0.0.0.0:0") as server:
        address = f"127.0.0.1:{server.address.rpartition(':')[2]}"
        import quantd

        with quantd.Client(
            address,
            token=tokens_on_disk.token_of("reader"),
            root_certificates=authority.certificate,
        ) as client:
            assert client.capabilities().server.instance_id
            with pytest.raises(quantd.PermissionDeniedError):
                client.quantize(team / "model", team / "out", quantd.bitsandbytes_8bit())
        with (
            quantd.Client(address, root_certificates=authority.certificate) as client,
            pytest.raises(quantd.UnauthenticatedError) as error,
        ):
            client.capabilities()
        assert error.value.reason == "CREDENTIALS_MISSING"
        with quantd.Client(
            address, token=tokens_on_disk.token_of("team"), root_certificates=authority.certificate
        ) as client:
            job = client.quantize(team / "model", team / "out", quantd.bitsandbytes_8bit())
            assert job.result().output_bytes
            assert client.job(job.name).owner == "team"
        assert [(line["caller"], line.get("job")) for line in server.events("audit")] == [
            ("reader", None),
            ("team", job.name),
        ]
        assert not server.events("exposed")
        assert not server.events("library")
        assert server.stop() == 0
