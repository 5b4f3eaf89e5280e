"""Who may call what, through a real server: no token, wrong, expired, and each role."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.api import tokens_on_disk
from tests.api.servers import ScriptedJobs, ScriptedPlanner, refused, running
from tests.api.tokens_on_disk import bearing, entry, token_of

from quantd import v1
from quantd_server.api.access import MAX_HEALTH_CALLS, ROLES_OF_METHODS, Access
from quantd_server.api.identity import ROLES
from quantd_server.api.server import OWN_FILES
from quantd_server.errors import QuantdError
from quantd_server.jobs.refusals import job_not_found
from quantd_server.planning.roots import Roots

METHODS = [
    method
    for file in OWN_FILES
    for service in file.services_by_name.values()
    for method in service.methods
]
SUBMITS = {"Quantize", "CancelJob", "DeleteJob"}


@pytest.fixture
def tokens(tmp_path):
    return tokens_on_disk.write(
        tmp_path / "tokens.toml",
        *(entry(role, role) for role in ROLES),
        entry("second", "submit"),
        entry("late", "admin", expires=tokens_on_disk.EXPIRED),
        entry("confined", "submit", sources=[tmp_path / "own"], outputs=[tmp_path / "own"]),
    )


@pytest_asyncio.fixture
async def guarded(tmp_path, tokens):
    """A server with tokens."""
    async with running(
        tmp_path, planner=ScriptedPlanner(), jobs=ScriptedJobs(), tokens=str(tokens)
    ) as server:
        yield server


def call(server, method, metadata=(), request: bytes = b"") -> Any:
    """Calls a method by its descriptor."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    if method.server_streaming:
        return server.channel.unary_stream(path)(request, metadata=metadata, timeout=20)
    return server.channel.unary_unary(path)(request, metadata=metadata, timeout=20)


async def code_of(made: Any) -> grpc.StatusCode:
    try:
        if hasattr(made, "__aiter__"):
            async for _ in made:
                pass
        else:
            await made
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_every_method_has_a_role():
    paths = {f"/{method.containing_service.full_name}/{method.name}" for method in METHODS}
    assert set(ROLES_OF_METHODS) == paths
    submits = {path for path, role in ROLES_OF_METHODS.items() if role == "submit"}
    assert {path.rpartition("/")[2] for path in submits} == SUBMITS


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "CREDENTIALS_MISSING"),
        ("", "TOKEN_INVALID"),
        ("Bearer", "TOKEN_INVALID"),
        ("Bearer wrong", "TOKEN_INVALID"),
        (f"Basic {token_of('admin')}", "TOKEN_INVALID"),
        (token_of("admin"), "TOKEN_INVALID"),
        (f"Bearer {token_of('admin')}x", "TOKEN_INVALID"),
        (f"Bearer {token_of('late')}", "CREDENTIALS_EXPIRED"),
    ],
)
async def test_without_a_good_token_nothing_answers(guarded, header, reason):
    metadata = () if header is None else (("authorization", header),)
    for method in METHODS:
        refusal = await refused(call(guarded, method, metadata))
        assert refusal.code is grpc.StatusCode.UNAUTHENTICATED, method.name
        assert refusal.reason == reason
        assert refusal.message


@pytest.mark.parametrize("role", ROLES)
async def test_what_each_role_may_call(guarded, role):
    for method in METHODS:
        made = call(guarded, method, bearing(role))
        if role == "read" and method.name in SUBMITS:
            refusal = await refused(made)
            assert refusal.code is grpc.StatusCode.PERMISSION_DENIED, method.name
            assert refusal.reason == "ROLE_TOO_SMALL"
        else:
            # An empty request: what got past the door is OK or says what is wrong with it.
            code = await code_of(made)
            assert code in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT), method.name


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
async def test_how_a_token_may_be_sent(guarded, scheme):
    metadata = (("authorization", f"{scheme} {token_of('read')}"),)
    assert await code_of(call(guarded, METHODS[0], metadata)) is grpc.StatusCode.OK


async def test_two_authorization_headers_are_refused(guarded):
    refusal = await refused(call(guarded, METHODS[0], bearing("admin") * 2))
    assert refusal.reason == "TOKEN_INVALID"


async def test_health_needs_no_token(guarded):
    stub = health_pb2_grpc.HealthStub(guarded.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert await stub.List(health_pb2.HealthListRequest())
    watch = stub.Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


async def test_reflection_needs_a_token(guarded):
    stub = reflection_pb2_grpc.ServerReflectionStub(guarded.channel)
    question = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    refusal = await refused(stub.ServerReflectionInfo(question))
    assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
    question = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    answer = await stub.ServerReflectionInfo(question, metadata=bearing("read")).read()
    assert answer.list_services_response.service


async def test_a_method_that_does_not_exist_tells_strangers_nothing(guarded):
    unknown = guarded.channel.unary_unary("/quantd.v1.JobService/None")
    assert (await refused(unknown(b""))).code is grpc.StatusCode.UNAUTHENTICATED
    refusal = await refused(unknown(b"", metadata=bearing("read")))
    assert refusal.code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_server_without_tokens_takes_every_caller(scripted):
    for metadata in ((), bearing("anybody"), (("authorization", "odd"),)):
        assert await code_of(call(scripted, METHODS[0], metadata)) is grpc.StatusCode.OK


# -- jobs of others --------------------------------------------------------------------------------


def quantize(server, name: str, request_id: str = "") -> Any:
    request = v1.QuantizeRequest(
        spec=v1.QuantizationSpec(
            source_uri="/a", output_uri="/b", method=v1.MethodConfig(gguf=v1.GgufConfig())
        ),
        request_id=request_id,
    )
    return v1.QuantizationServiceStub(server.channel).Quantize(request, metadata=bearing(name))


async def made_by(server, name: str) -> str:
    events = [answer.event async for answer in quantize(server, name)]
    return str(events[0].snapshot.name)


def endings(server, job: str, name: str) -> tuple[Any, Any]:
    stub = v1.JobServiceStub(server.channel)
    return (
        stub.CancelJob(v1.CancelJobRequest(name=job), metadata=bearing(name)),
        stub.DeleteJob(v1.DeleteJobRequest(name=job, delete_output=True), metadata=bearing(name)),
    )


async def test_a_job_has_an_owner(guarded):
    job = await made_by(guarded, "submit")
    stub = v1.JobServiceStub(guarded.channel)
    answer = await stub.GetJob(v1.GetJobRequest(name=job), metadata=bearing("read"))
    assert answer.job.owner == "submit"


async def test_only_the_owner_and_an_admin_end_a_job(guarded):
    job = await made_by(guarded, "submit")
    for ending in endings(guarded, job, "second"):
        refusal = await refused(ending)
        assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
        assert refusal.reason == "JOB_OF_ANOTHER"
    for name in ("submit", "admin"):
        for ending in endings(guarded, job, name):
            assert await code_of(ending) is grpc.StatusCode.OK


async def test_a_reader_sees_all_jobs_and_ends_none(guarded):
    job = await made_by(guarded, "submit")
    stub = v1.JobServiceStub(guarded.channel)
    listed = await stub.ListJobs(v1.ListJobsRequest(), metadata=bearing("read"))
    assert [each.name for each in listed.jobs] == [job]
    for ending in endings(guarded, job, "read"):
        assert (await refused(ending)).reason == "ROLE_TOO_SMALL"


async def test_a_confined_caller_learns_of_no_jobs_but_its_own(guarded):
    other = await made_by(guarded, "submit")
    own = await made_by(guarded, "confined")
    stub = v1.JobServiceStub(guarded.channel)
    listed = await stub.ListJobs(v1.ListJobsRequest(), metadata=bearing("confined"))
    assert [job.name for job in listed.jobs] == [own]

    def answers(name: str) -> tuple[Any, ...]:
        metadata = bearing("confined")
        return (
            stub.GetJob(v1.GetJobRequest(name=name), metadata=metadata),
            stub.WatchJob(v1.WatchJobRequest(name=name), metadata=metadata),
            *endings(guarded, name, "confined"),
        )

    for hidden in answers(other):
        refusal = await refused(hidden)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")
    for open_to_it in answers(own):
        assert await code_of(open_to_it) is grpc.StatusCode.OK


async def test_a_hidden_job_is_as_one_that_does_not_exist(tmp_path, tokens):
    async with running(tmp_path, planner=ScriptedPlanner(), tokens=str(tokens)) as server:
        stub = v1.JobServiceStub(server.channel)
        refusal = await refused(
            stub.GetJob(v1.GetJobRequest(name="jobs/1"), metadata=bearing("confined"))
        )
        hidden = job_not_found("jobs/1")
        assert refusal.message == f"{hidden.message}; {hidden.remedy}"


async def test_a_request_id_of_another_gives_no_job(guarded):
    jobs = guarded.services.jobs
    owned = jobs.add("jobs/theirs", owner="submit")
    jobs.find_request = lambda *_: owned
    identifier = "0b0e0000-0000-4000-8000-000000000001"
    refusal = await refused(quantize(guarded, "second", identifier))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert await code_of(quantize(guarded, "submit", identifier)) is grpc.StatusCode.OK


# -- the log ---------------------------------------------------------------------------------------


async def test_every_mutating_call_is_audited_and_no_token_is_logged(guarded):
    job = await made_by(guarded, "submit")
    for ending in (*endings(guarded, job, "second"), *endings(guarded, job, "admin")):
        await code_of(ending)
    await code_of(call(guarded, METHODS[0], bearing("read")))
    await code_of(quantize(guarded, "stranger"))
    await code_of(quantize(guarded, "read"))
    for _ in range(100):  # a line is written just after the client has its answer
        if len(guarded.events("call")) == 8:
            break
        await asyncio.sleep(0.02)
    said = Counter(
        (line["method"].rpartition("/")[2], line.get("caller"), line.get("job"), line["code"])
        for line in guarded.events("audit")
    )
    assert said == Counter(
        [
            ("Quantize", "submit", job, "OK"),
            ("CancelJob", "second", job, "PERMISSION_DENIED"),
            ("DeleteJob", "second", job, "PERMISSION_DENIED"),
            ("CancelJob", "admin", job, "OK"),
            ("DeleteJob", "admin", job, "OK"),
            ("Quantize", None, None, "UNAUTHENTICATED"),
            ("Quantize", "read", None, "PERMISSION_DENIED"),
        ]
    )
    callers = {line.get("caller") for line in guarded.events("call")}
    assert callers == {"submit", "second", "admin", "read", None}
    assert "token-of-" not in guarded.log.getvalue()


def test_audit_lines_are_written_at_every_level():
    import io

    from quantd_server.api.log import Log

    stream = io.StringIO()
    log = Log(level="error", stream=stream)
    log("call")
    log("audit", always=True, code="OK")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["audit"]


# -- how often -------------------------------------------------------------------------------------


async def test_a_caller_who_calls_too_often_waits_and_others_do_not(tmp_path, tokens):
    async with running(
        tmp_path,
        planner=ScriptedPlanner(),
        jobs=ScriptedJobs(),
        tokens=str(tokens),
        max_calls_per_second=0.001,
    ) as server:
        stub = v1.JobServiceStub(server.channel)
        request = v1.ListJobsRequest()
        await stub.ListJobs(request, metadata=bearing("read"))
        refusal = await refused(stub.ListJobs(request, metadata=bearing("read")))
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refusal.reason == "TOO_MANY_CALLS"
        assert refusal.retry is not None
        assert refusal.retry.retry_delay.seconds > 0
        await stub.ListJobs(request, metadata=bearing("admin"))
        health = health_pb2_grpc.HealthStub(server.channel)
        for _ in range(5):
            await health.Check(health_pb2.HealthCheckRequest(), metadata=bearing("read"))


async def test_refused_calls_count(tmp_path, tokens):
    async with running(
        tmp_path, jobs=ScriptedJobs(), tokens=str(tokens), max_calls_per_second=0.001
    ) as server:
        stub = v1.JobServiceStub(server.channel)
        request = v1.CancelJobRequest(name="jobs/1")
        reasons = [
            (await refused(stub.CancelJob(request, metadata=bearing("read")))).reason
            for _ in range(3)
        ]
        assert reasons == ["ROLE_TOO_SMALL", "TOO_MANY_CALLS", "TOO_MANY_CALLS"]


async def test_strangers_do_not_take_every_place(guarded):
    stub = health_pb2_grpc.HealthStub(guarded.channel)
    request = health_pb2.HealthCheckRequest()
    watches = [stub.Watch(request) for _ in range(MAX_HEALTH_CALLS)]
    for watch in watches:
        await watch.read()
    refusal = await refused(stub.Check(request))
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await code_of(call(guarded, METHODS[0], bearing("read"))) is grpc.StatusCode.OK
    for watch in watches:
        watch.cancel()
    for _ in range(100):
        if await code_of(stub.Check(request)) is grpc.StatusCode.OK:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("places that were left are not free again")


# -- odd headers -----------------------------------------------------------------------------------

PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=200)
NEARLY = st.sampled_from(["Bearer ", "bearer ", "Bearer  ", "Basic ", " Bearer "])


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    headers=st.lists(st.one_of(PRINTABLE, st.tuples(NEARLY, PRINTABLE).map("".join)), max_size=3)
)
async def test_no_header_leads_in(guarded, headers):
    metadata = tuple(("authorization", header) for header in headers)
    refusal = await refused(call(guarded, METHODS[0], metadata))
    assert refusal.code is grpc.StatusCode.UNAUTHENTICATED


class Connection:
    """What ``Access`` asks of a call."""

    def __init__(self, headers: list[Any]) -> None:
        self._headers = headers

    def invocation_metadata(self) -> list[tuple[str, Any]]:
        return [("authorization", header) for header in self._headers]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(headers=st.lists(st.one_of(st.text(), st.binary(), st.just("Bearer \ud800")), max_size=3))
def test_no_header_leads_in_even_if_no_client_could_send_it(tokens, tmp_path, headers):
    from quantd_server.api.token_file import TokenFile

    roots = Roots.of((str(tmp_path),), (str(tmp_path),))
    file = TokenFile(str(tokens), roots, lambda *_, **__: None)
    access = Access(tokens=file, certificates=False, limit=None)
    with pytest.raises(QuantdError) as error:
        access.caller_of("/quantd.v1.JobService/ListJobs", Connection(headers))
    assert error.value.kind == "unauthenticated"
