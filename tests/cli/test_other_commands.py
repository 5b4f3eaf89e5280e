"""`plan`, `inspect`, `capabilities` and `jobs`."""

from __future__ import annotations

import json

import pytest
from tests.client.fake_server import JOB

import quantd
from quantd import v1

JOB_ID = JOB.removeprefix("jobs/")


@pytest.fixture
def plan():
    answer = v1.PlanQuantizationResponse(
        executable=True,
        plan=v1.Plan(
            method=quantd.gguf("Q4_K_M"),
            device="DEVICE_KIND_CPU",
            types=[
                v1.TypeSummary(
                    target_type="Q4_K", tensor_count=7, element_count=7000, size_bytes=4000
                )
            ],
            parameter_count=7000,
            quantized_parameter_count=6900,
            source_bytes=14000,
            output_bytes=4000,
            bits_per_weight=4.57,
            peak_memory_bytes=300_000_000,
        ),
        findings=[
            v1.Finding(
                severity="SEVERITY_INFO",
                reason="FALLBACK_TYPE",
                message="576 is not a multiple of 256",
            )
        ],
    )
    answer.plan.estimated_duration.FromSeconds(75)
    return answer


def test_plan(server, run, plan):
    server.plan = plan
    server.tensor_count = 3
    result = run("plan", "/models/m", "--method", "gguf")
    assert result.exit_code == 0
    for piece in (
        "gguf (Q4_K_M)",
        "4.00 kB (4,000 bytes, 3.50 times smaller)",
        "300 MB",
        "1 min 15 s",
        "info FALLBACK_TYPE",
        "executable",
    ):
        assert piece in result.stdout
    assert "tensor.2" not in result.stdout
    assert server.requests("PlanQuantization")[0].spec.output_uri == "/models/m-Q4_K_M.gguf"
    assert "tensor.2" in run("plan", "/models/m", "--method", "gguf", "--tensors").stdout


def test_a_plan_that_would_be_refused_ends_with_3(server, run, plan):
    plan.executable = False
    server.plan = plan
    result = run("plan", "/models/m", "--method", "gguf", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["plan"]["output_bytes"] == "4000"


def test_inspect(server, run):
    server.tensor_count = 3
    result = run("inspect", "/models/m", "--context-length", "4096")
    assert result.exit_code == 0
    assert "/models/m" in result.stdout
    assert server.requests("InspectCheckpoint")[0].context_length == 4096
    assert "tensor.2" in run("inspect", "/models/m", "--tensors").stdout
    answer = json.loads(run("inspect", "/models/m", "--tensors", "--json").stdout)
    assert [tensor["name"] for tensor in answer["tensors"]] == ["tensor.0", "tensor.1", "tensor.2"]


def test_inspect_tells_where_it_loads_and_why_not(server, run):
    missing = v1.Finding(
        severity="SEVERITY_ERROR",
        reason="PACKAGE_MISSING",
        message="vllm is not installed",
        remedy="pip install 'vllm'",
    )
    server.loads = [
        v1.LoadAssessment(
            engine="ENGINE_TRANSFORMERS",
            device="DEVICE_KIND_CPU",
            loadable=True,
            weight_bytes=16_000_000_000,
            kv_cache_bytes=1_000_000_000,
            free_bytes=24_000_000_000,
        ),
        *(
            v1.LoadAssessment(
                engine="ENGINE_VLLM",
                device="DEVICE_KIND_CUDA",
                device_index=index,
                findings=[missing],
            )
            for index in (0, 1)
        ),
    ]
    stdout = run("inspect", "/models/m").stdout
    lines = [" ".join(line.split()) for line in stdout.splitlines()]
    assert "transformers cpu yes 16.0 GB 1.00 GB 24.0 GB" in lines
    assert "vllm cuda:1 no 0 B 0 B 0 B" in lines
    # What is the same for two devices is said once.
    assert lines.count("vllm is not installed") == 1
    assert "error PACKAGE_MISSING vllm on cuda:0, vllm on cuda:1" in lines
    assert "fix: pip install 'vllm'" in lines
    answer = json.loads(run("inspect", "/models/m", "--json").stdout)
    assert answer["loads"][2]["findings"][0]["reason"] == "PACKAGE_MISSING"


def test_capabilities(run):
    assert "quantd 0.0.0" in run("capabilities").stdout
    assert json.loads(run("capabilities", "--json").stdout) == {"server": {"version": "0.0.0"}}


def test_jobs_list(server, run):
    result = run("jobs", "list", "--state", "running", "--method", "gguf", "--label", "team=a")
    assert result.exit_code == 0
    assert result.stdout.index("jobs/newer") < result.stdout.index("jobs/older")
    assert server.requests("ListJobs")[0] == v1.ListJobsRequest(
        states=["JOB_STATE_RUNNING"], methods=["METHOD_GGUF"], labels={"team": "a"}
    )
    lines = run("jobs", "list", "--json", "--limit", "1").stdout.splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["jobs/newer"]


def test_jobs_show(run):
    result = run("jobs", "show", JOB_ID)
    assert result.exit_code == 0
    assert "succeeded" in result.stdout
    assert "5.13 %" in result.stdout
    assert json.loads(run("jobs", "show", JOB, "--json").stdout)["name"] == JOB
    result = run("jobs", "show", "none")
    assert result.exit_code == 3
    assert result.stderr == "quantd: JOB_NOT_FOUND: no such job\n"


def test_jobs_watch(server, run):
    result = run("jobs", "watch", JOB_ID, "--after-sequence", "4", "--json")
    sequences = [json.loads(line)["sequence"] for line in result.stdout.splitlines()]
    assert sequences == [str(number) for number in range(5, len(server.log) + 1)]
    assert "succeeded" in run("jobs", "watch", JOB_ID).stderr


def test_jobs_cancel_and_delete(server, run):
    assert "CANCELLING" in run("jobs", "cancel", JOB_ID, "--reason", "no need").stdout
    assert server.requests("CancelJob") == [v1.CancelJobRequest(name=JOB, reason="no need")]
    assert run("jobs", "delete", JOB_ID, "--delete-output").exit_code == 0
    assert server.requests("DeleteJob") == [v1.DeleteJobRequest(name=JOB, delete_output=True)]


@pytest.mark.parametrize(
    "words",
    [("jobs", "list"), ("jobs", "watch", JOB), ("quantize", "/m", "-m", "gguf", "--detach")],
)
def test_what_needs_a_server_that_stays(run, monkeypatch, words):
    monkeypatch.delenv("QUANTD_SERVER")
    result = run(*words)
    assert result.exit_code == 4
    assert "needs a server that stays" in result.stderr


def test_help_explains_exit_codes(run):
    for words in ((), ("quantize",), ("plan",)):
        text = " ".join(run(*words, "--help").stdout.split())
        assert "Exit codes: 0 done; 1 the job failed" in text
