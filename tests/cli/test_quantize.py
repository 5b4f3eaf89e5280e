"""`quantd quantize` sends what its options say and tells what became of the job."""

from __future__ import annotations

import json

import grpc
import pytest
from google.protobuf import json_format
from tests.client.fake_server import JOB, error_info, script, status

import quantd
from quantd import v1

GGUF = ("--method", "gguf")
HEAD_AND_EMBEDDINGS = {"output_tensor_type": "Q8_0", "token_embedding_type": "BF16", "pure": False}
FOUR_BIT = ("--method", "bitsandbytes-4bit")


def requested(server):
    (request,) = server.requests("Quantize")
    return request


def test_a_job_that_succeeds(server, run):
    result = run("quantize", "/models/m", *GGUF, "--type", "Q4_K_M")
    assert result.exit_code == 0
    assert "5.13 %" in result.stdout
    assert "blk.3.attn_q.weight (7 %)" in result.stdout
    assert "3.33 times smaller, 4.50 bits per weight" in result.stdout
    assert "/models/m-Q4_K_M.gguf (1.50 kB)" in result.stdout
    assert f"{JOB}: /models/m to /models/m-Q4_K_M.gguf" in result.stderr
    assert "NON_FINITE_WEIGHTS" in result.stderr
    assert "fix: check the checkpoint" in result.stderr
    assert requested(server).spec.output_uri == "/models/m-Q4_K_M.gguf"


def test_json_prints_every_event_once(server, run):
    result = run("quantize", "/models/m", *GGUF, "--json")
    assert result.exit_code == 0
    events = [json_format.Parse(line, v1.JobEvent()) for line in result.stdout.splitlines()]
    assert events == server.log
    assert '"source_bytes"' in result.stdout  # the names of the spec
    assert result.stderr == ""


@pytest.mark.parametrize(("state", "code"), [("FAILED", 1), ("CANCELLED", 130)])
def test_a_job_that_does_not_succeed(server, run, state, code):
    server.log = script(state=state)
    result = run("quantize", "/models/m", *GGUF)
    assert result.exit_code == code
    assert f"quantd: {JOB} DISK_FULL: the disk is full" in result.stderr
    result = run("quantize", "/models/m", *GGUF, "--json")
    assert result.exit_code == code
    last = json.loads(result.stdout.splitlines()[-1])
    assert last["snapshot"]["error"]["details"][0]["reason"] == "DISK_FULL"


def test_a_refused_request_prints_the_findings_of_its_plan(server, run):
    server.refusal = status(grpc.StatusCode.FAILED_PRECONDITION, "no", error_info("DISK_TOO_SMALL"))
    finding = v1.Finding(
        severity="SEVERITY_ERROR",
        reason="DISK_TOO_SMALL",
        field="spec.output_uri",
        message="needs 3 GB, has 1 GB",
        remedy="free 2 GB",
        subjects=["a.weight", "b.weight"],
        subject_count=9,
    )
    server.plan = v1.PlanQuantizationResponse(executable=False, findings=[finding])
    result = run("quantize", "/models/m", *GGUF)
    assert result.exit_code == 3
    assert [line.strip() for line in result.stderr.splitlines()] == [
        "error DISK_TOO_SMALL spec.output_uri",
        "needs 3 GB, has 1 GB",
        "a.weight, b.weight and 7 more",
        "fix: free 2 GB",
    ]
    assert result.stdout == ""


def test_a_refused_request_as_json(server, run):
    info = error_info("REQUEST_ID_REUSED")
    server.refusal = status(grpc.StatusCode.ALREADY_EXISTS, "used before", info)
    result = run("quantize", "/models/m", *GGUF, "--json")
    assert result.exit_code == 3
    error = json.loads(result.stdout)["error"]
    assert (error["code"], error["reason"]) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")


def test_detach_leaves_the_job(server, run):
    result = run("quantize", "/models/m", *GGUF, "--detach")
    assert (result.exit_code, result.stdout) == (0, f"{JOB}\n")
    assert server.requests("CancelJob") == []


@pytest.mark.parametrize(
    ("words", "method"),
    [
        (
            (*GGUF, "--type", "q5_k_s", "--pure", "--imatrix", "/i.dat"),
            quantd.gguf("Q5_K_S", pure=True, imatrix_uri="/i.dat"),
        ),
        (
            (*GGUF, "--tensor-type", "a=b=Q6_K", "--tensor-type", "ffn=Q5_0"),
            quantd.gguf(tensor_types={"a=b": "Q6_K", "ffn": "Q5_0"}),
        ),
        (
            (*GGUF, "--output-tensor-type", "Q8_0", "--token-embedding-type", "bf16", "--no-pure"),
            quantd.method_config("gguf", **HEAD_AND_EMBEDDINGS),
        ),
        (
            (*FOUR_BIT, "--quant-type", "nf4", "--double-quant", "--blocksize", "128"),
            quantd.bitsandbytes_4bit("nf4", bnb_4bit_use_double_quant=True, blocksize=128),
        ),
        (
            (*FOUR_BIT, "--quant-storage", "bfloat16", "--compute-dtype", "float16"),
            quantd.bitsandbytes_4bit(
                bnb_4bit_quant_storage="bfloat16", bnb_4bit_compute_dtype="float16"
            ),
        ),
        (
            ("--method", "bitsandbytes_8bit", "--skip-module", "lm_head", "--threshold", "5"),
            quantd.bitsandbytes_8bit(llm_int8_skip_modules=["lm_head"], llm_int8_threshold=5.0),
        ),
        (
            ("--method", "gptq", "--bits", "4", "--group-size", "-1", "--no-sym", "--desc-act"),
            quantd.gptq(4, group_size=-1, sym=False, desc_act=True),
        ),
        (
            ("--method", "gptq", "--set", "damp_percent=0.1", "--set", "format=gptq_v2"),
            quantd.gptq(damp_percent=0.1, format="gptq_v2"),
        ),
        (
            ("--method", "awq", "--skip-module", "lm_head", "--set", "duo_scaling=false"),
            quantd.awq(modules_to_not_convert=["lm_head"], duo_scaling=False),
        ),
        (
            ("--config", '{"gguf": {"file_type": "GGUF_FILE_TYPE_Q8_0"}}'),
            quantd.gguf("Q8_0"),
        ),
        # The server makes the typed configuration of any other JSON.
        (("--config", '{"load_in_8bit": true}'), quantd.bitsandbytes_8bit()),
    ],
)
def test_options_become_the_configuration(server, run, words, method):
    result = run("quantize", "/models/m", "/out", *words)
    assert result.exit_code == 0, result.output
    assert requested(server).spec.method == method
    assert requested(server).spec.output_uri == "/out"


def test_options_become_the_rest_of_the_request(server, run):
    words = (*["--max-shard-size", "2GB", "--device", "cpu", "--serve-target", "vllm:8.6"],)
    words += (*["--label", "team=a", "--label", "run=7", "--allow-non-finite"],)
    words += (*["--calibration-file", "/c.jsonl", "--calibration-samples", "8"],)
    words += (*["--calibration-field", "body", "--calibration-packing", "truncate"],)
    words += (*["--calibration-chat", "--evaluation-file", "/e.txt"],)
    assert run("quantize", "/m", *GGUF, *words).exit_code == 0
    spec = requested(server).spec
    assert spec.max_shard_size == 2 * 10**9
    assert spec.device == v1.DeviceKind.DEVICE_KIND_CPU
    assert spec.allow_non_finite
    assert spec.serve_targets[0].compute_capability == "8.6"
    assert spec.calibration == v1.CalibrationConfig(
        num_samples=8,
        file=v1.CalibrationFile(uri="/c.jsonl", json_field="body"),
        packing=v1.PackingPolicy.PACKING_POLICY_TRUNCATE,
        apply_chat_template=True,
    )
    assert spec.evaluation == v1.EvaluationConfig(file=v1.CalibrationFile(uri="/e.txt"))
    assert dict(requested(server).labels) == {"team": "a", "run": "7"}


def test_measuring_is_asked_for_with_a_word(server, run):
    assert run("quantize", "/m", *GGUF, "--evaluate").exit_code == 0
    spec = requested(server).spec
    assert spec.HasField("evaluation") and not spec.HasField("calibration")
    assert spec.evaluation == v1.EvaluationConfig()


def test_a_configuration_from_a_file(server, run, tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"quant_method": "bitsandbytes", "load_in_8bit": true}')
    assert run("quantize", "/models/m", "--config", str(file)).exit_code == 0
    (request,) = server.requests("ParseConfig")
    assert request.config_json == file.read_text()
    assert requested(server).spec.output_uri == "/models/m-int8"


def test_relative_paths_are_those_of_the_caller(server, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("quantize", "m", "out.gguf", *GGUF).exit_code == 0
    assert requested(server).spec.source_uri == str(tmp_path / "m")
    assert requested(server).spec.output_uri == str(tmp_path / "out.gguf")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("quantize",), "Missing argument"),
        (("quantize", "/m"), "--method or --config"),
        (("quantize", "/m", "--method", "q4"), "is not one of bitsandbytes-8bit"),
        (("quantize", "/m", *GGUF, "--type", "Q4_K_X"), "did you mean Q4_K_"),
        (("quantize", "/m", *GGUF, "--quant-type", "nf4"), "belongs to bitsandbytes-4bit"),
        (("quantize", "/m", *GGUF, "--tensor-type", "x"), "is not of the form PATTERN=TYPE"),
        (("quantize", "/m", *GGUF, "--set", "file_typ=Q8_0"), "GgufConfig has no field 'file_typ'"),
        (("quantize", "/m", *GGUF, "--max-shard-size", "big"), "is no size"),
        (("quantize", "/m", *GGUF, "--label", "x"), "is not of the form KEY=VALUE"),
        (("quantize", "/m", *GGUF, "--config", "{}"), "--config already says everything"),
        (("quantize", "/m", "--config", "{"), "--config is not JSON"),
        (("quantize", "/m", "--config", '{"gguf": {"x": 1}}'), "no field named"),
        (("quantize", "/m", "--config", "/no/such/file"), "cannot read"),
        (("quantize", "/m", *GGUF, "--client-key", "/k"), "belong together"),
    ],
)
def test_a_wrong_command_ends_with_2(server, run, words, message):
    result = run(*words)
    assert result.exit_code == 2
    text = " ".join(result.stderr.replace("│", " ").split())
    assert message in text
    assert server.requests("Quantize") == []


def test_a_server_that_is_not_there_ends_with_4(run, monkeypatch, tmp_path):
    monkeypatch.setattr("quantd_server.cli.server_options.CONNECT_TIMEOUT", 0.1)
    result = run("quantize", "/m", *GGUF, "--server", f"unix:{tmp_path}/none")
    assert result.exit_code == 4
    assert "was not serving within" in result.stderr


def test_a_fault_of_the_program_shows_no_stack_trace(run, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("boom")

    monkeypatch.setattr("quantd.Client.quantize", broken)
    result = run("quantize", "/m", *GGUF, "--json")
    assert result.exit_code == 1
    assert "a fault of this program: RuntimeError: boom" in result.stderr
    assert "Traceback" not in result.stderr
