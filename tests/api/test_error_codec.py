"""Findings as statuses: code, details, and sizes that survive the trailers."""

from __future__ import annotations

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.api.servers import SPEC, ScriptedJobs, ScriptedPlanner, refused, running

from quantd import v1
from quantd_server.api.error_codec import (
    CODES,
    MAX_STATUS_BYTES,
    MAX_VIOLATIONS,
    cut,
    internal_status,
    reason_of_rule,
    status_of,
)
from quantd_server.api.translation import to_message
from quantd_server.errors import Finding, QuantdError


def finding(kind: str = "invalid", **fields: str) -> Finding:
    defaults = {"field": "spec.method", "reason": "A_REASON", "message": "got 3", "remedy": "use 4"}
    return Finding(**defaults | fields, kind=kind)  # type: ignore[arg-type]


async def quantize(server):
    """The refusal of a job."""
    request = v1.QuantizeRequest(spec=to_message(SPEC, v1.QuantizationSpec))
    return await refused(v1.QuantizationServiceStub(server.channel).Quantize(request))


@pytest.mark.parametrize("kind", list(CODES))
async def test_every_kind_arrives_with_its_code_and_details(tmp_path, kind):
    planner = ScriptedPlanner(finding(kind))
    async with running(tmp_path, planner=planner, jobs=ScriptedJobs()) as server:
        refusal = await quantize(server)
    assert refusal.code is CODES[kind]
    assert refusal.reason == "A_REASON"
    assert refusal.message == "got 3; use 4"
    assert refusal.info.metadata["field"] == "spec.method"
    assert refusal.info.metadata["remedy"] == "use 4"
    assert [item.field for item in refusal.fields] == (["spec.method"] if kind == "invalid" else [])
    assert len(refusal.preconditions) == (kind == "precondition")
    assert (refusal.retry is not None) == (kind == "exhausted")


async def test_the_worst_that_fits_arrives_and_says_how_many_there_are(tmp_path):
    # Long texts outside ASCII are the longest ones in the trailers: percent-encoded there.
    many = [
        finding(message="世界" * 2000, field=f"f{i}" * 300, remedy="é" * 900) for i in range(200)
    ]
    async with running(tmp_path, planner=ScriptedPlanner(*many), jobs=ScriptedJobs()) as server:
        for _ in range(20):
            refusal = await quantize(server)
            assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
            assert refusal.info.metadata["violation_count"] == "200"
            assert 0 < len(refusal.fields) <= MAX_VIOLATIONS


async def test_not_found_comes_before_invalid_before_precondition(tmp_path):
    kinds = ["precondition", "unimplemented", "invalid", "not_found"]
    planner = ScriptedPlanner(*(finding(kind, reason=kind.upper()) for kind in kinds))
    async with running(tmp_path, planner=planner, jobs=ScriptedJobs()) as server:
        refusal = await quantize(server)
    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert refusal.reason == "NOT_FOUND"
    assert [item.reason for item in refusal.fields] == ["NOT_FOUND", "INVALID", "UNIMPLEMENTED"]
    assert [item.type for item in refusal.preconditions] == ["PRECONDITION"]
    assert refusal.message.startswith("4 problems; the first: ")


texts = st.text(max_size=3000)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            finding, kind=st.sampled_from(list(CODES)), field=texts, message=texts, remedy=texts
        ),
        min_size=1,
        max_size=80,
    )
)
def test_a_status_is_always_small_and_whole(findings):
    status = status_of(findings)
    assert status.ByteSize() <= MAX_STATUS_BYTES
    assert status.code != 0
    types = [detail.type_url for detail in status.details]
    assert len(types) == len(set(types))


def test_internal_says_nothing_but_the_incident():
    status = internal_status("abc")
    assert status.message == "internal error abc; look it up in the server's log"


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("string.min_len", "STRING_MIN_LEN"),
        ("gptq.act_order_exclusive", "GPTQ_ACT_ORDER_EXCLUSIVE"),
        ("required", "REQUIRED"),
        ("int32.gte_lte", "INT32_GTE_LTE"),
    ],
)
def test_reason_of_rule(rule, reason):
    assert reason_of_rule(rule) == reason


@given(st.text(alphabet=st.characters(), max_size=400), st.integers(3, 300))
def test_cut_keeps_to_the_limit_and_to_utf8(text, limit):
    short = cut(text, limit)
    assert len(short.encode()) <= limit
    if len(text.encode("utf-8", "replace")) <= limit:
        assert short == text.encode("utf-8", "replace").decode()


@pytest.mark.parametrize(("delay", "told"), [(None, 5), (1.0, 1), (36.2, 37)])
async def test_the_delay_of_what_is_exhausted_arrives_in_whole_seconds(tmp_path, delay, told):
    class FullJobs(ScriptedJobs):
        async def submit(self, report, **request):
            raise QuantdError(
                reason="QUEUE_FULL", message="full", kind="exhausted", retry_delay=delay
            )

    async with running(tmp_path, planner=ScriptedPlanner(), jobs=FullJobs()) as server:
        refusal = await quantize(server)
    assert refusal.retry.retry_delay.ToTimedelta().total_seconds() == told
