"""The data of a job: every finding by itself, and what planning fills in."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from tests import tiny_models
from tests.quantizing import planned, specification

from quantd_server.calibration import data
from quantd_server.calibration.config import CalibrationConfig, EvaluationConfig
from quantd_server.checkpoint.opening import open_checkpoint
from quantd_server.errors import Severity
from quantd_server.planning.calibration_rules import plan_data
from quantd_server.planning.roots import Roots

TEXT = "the other one is there. " * 200
ENOUGH = {"texts": {"texts": [TEXT]}, "num_samples": 4, "sequence_length": 64}


@pytest.fixture
def source(tmp_path) -> Path:
    return tiny_models.write(tmp_path / "source")


def data_plan(source: Path, calibration=None, evaluation=None, *, calibrated=True):
    spec = specification(
        source,
        "",
        "gptq",
        calibration=calibration and msgspec.convert(calibration, CalibrationConfig),
        evaluation=evaluation and msgspec.convert(evaluation, EvaluationConfig),
    )
    roots = Roots.of((str(source.parent),), ())
    return plan_data(spec, open_checkpoint(source), roots, calibrated=calibrated)


def found(*args, **options):
    return [
        (one.severity.value, one.reason, one.field) for one in data_plan(*args, **options).findings
    ]


def change_config(source: Path, **changes) -> None:
    path = source / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def tokens(*sequences):
    return {"tokens": {"sequences": [{"ids": ids} for ids in sequences]}}


def test_data_that_is_right(source):
    plan = data_plan(source, ENOUGH, {**ENOUGH, "num_samples": 2})
    assert plan.findings == ()
    assert plan.paths == {}
    assert (plan.usage.samples_requested, plan.usage.samples_usable) == (4, 4)
    assert (plan.usage.tokens, len(plan.usage.sha256)) == (256, 64)


def test_defaults_are_filled_in(source):
    plan = data_plan(source, evaluation={"num_samples": 3})
    calibration, evaluation = plan.spec.calibration, plan.spec.evaluation
    # The tiny model's context is 128 tokens.
    assert (calibration.num_samples, calibration.sequence_length) == (128, 128)
    assert calibration.builtin is not None and evaluation.builtin is not None
    assert (evaluation.num_samples, evaluation.sequence_length) == (3, 128)
    assert plan.usage.samples_usable == 128
    assert [one.reason for one in plan.findings] == ["BUILTIN_TEXT_USED"]
    assert data_plan(source).spec.evaluation is None


def test_files_are_resolved_below_the_roots(source, tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": TEXT}))
    first, second = f"file://{tmp_path}/a.txt", str(tmp_path / "b.jsonl")
    sizes = {"num_samples": 2, "sequence_length": 64}
    plan = data_plan(source, {"file": {"uri": first}, **sizes}, {"file": {"uri": second}, **sizes})
    assert plan.findings == ()
    assert plan.paths == {first: str(tmp_path / "a.txt"), second: str(tmp_path / "b.jsonl")}


@pytest.mark.parametrize(
    ("calibration", "expected"),
    [
        (None, ("INFO", "BUILTIN_TEXT_USED", "spec.calibration")),
        (
            {**ENOUGH, "num_samples": 4000},
            ("WARNING", "TOO_FEW_SAMPLES", "spec.calibration.num_samples"),
        ),
        ({**ENOUGH, "texts": {"texts": ["short"]}}, ("ERROR", "NO_SAMPLES", "spec.calibration")),
        (
            {**ENOUGH, "sequence_length": 129},
            ("ERROR", "SEQUENCE_TOO_LONG", "spec.calibration.sequence_length"),
        ),
        (tokens([1] * 129), ("ERROR", "SEQUENCE_TOO_LONG", "spec.calibration.tokens")),
        (
            tokens([5], [tiny_models.VOCABULARY]),
            ("ERROR", "TOKEN_BEYOND_VOCABULARY", "spec.calibration.tokens"),
        ),
        (
            {
                "texts": {"texts": [TEXT] * 3 + ["short"]},
                "num_samples": 3,
                "sequence_length": 64,
                "packing": "TRUNCATE",
            },
            ("INFO", "SHORT_TEXTS_DROPPED", "spec.calibration.packing"),
        ),
        (
            {**ENOUGH, "apply_chat_template": True},
            ("ERROR", "CHAT_TEMPLATE_MISSING", "spec.calibration.apply_chat_template"),
        ),
    ],
)
def test_each_finding_alone(source, calibration, expected):
    assert found(source, calibration) == [expected]


def test_more_tokens_than_any_job_needs(source):
    change_config(source, max_position_embeddings=4096)
    (finding,) = found(source, {**ENOUGH, "num_samples": 65536, "sequence_length": 4096})
    assert finding == ("ERROR", "TOO_MANY_TOKENS", "spec.calibration.num_samples")


def test_a_chat_template_that_fails(source):
    (source / "chat_template.jinja").write_text("{{ raise_exception('No') }}")
    (finding,) = found(source, {**ENOUGH, "apply_chat_template": True})
    assert finding == ("ERROR", "CHAT_TEMPLATE_FAILED", "spec.calibration.apply_chat_template")


@pytest.mark.parametrize("other", ["tokenizer.model", "vocab.json"])
def test_a_checkpoint_without_tokenizer_json(source, other):
    (source / "tokenizer.json").rename(source / other)
    (finding,) = found(source, ENOUGH)
    assert finding == ("ERROR", "TOKENIZER_MISSING", "spec.source_uri")
    # Token ids need none.
    assert found(source, tokens([1, 2, 3])) == []


def test_a_tokenizer_of_another_model(source):
    change_config(source, vocab_size=50)
    (finding,) = found(source, ENOUGH)
    assert finding == ("ERROR", "TOKEN_BEYOND_VOCABULARY", "spec.source_uri")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"a", "TEXT_FILE_FORMAT"),
        ("a.txt", b"caf\xe9", "TEXT_NOT_UTF8"),
        ("a.jsonl", b"{", "JSON_LINE_INVALID"),
        ("a.jsonl", b"{}", "JSON_FIELD_INVALID"),
    ],
)
@pytest.mark.parametrize("role", ["calibration", "evaluation"])
def test_files_that_are_wrong(source, tmp_path, name, content, reason, role):
    (tmp_path / name).write_bytes(content)
    file = {"file": {"uri": str(tmp_path / name)}}
    pair = (file, None) if role == "calibration" else (ENOUGH, file)
    ((severity, actual, field),) = found(source, *pair)
    assert (severity, actual) == ("ERROR", reason)
    assert field.startswith(f"spec.{role}.file.")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("/etc/hostname.txt", "PATH_OUTSIDE_ROOTS"),
        ("hf:a/b.txt", "URI_UNSUPPORTED"),
        ("{}/absent.txt", "SOURCE_NOT_FOUND"),
    ],
)
def test_files_that_may_not_be_read(source, tmp_path, uri, reason):
    (finding,) = found(source, {"file": {"uri": uri.format(tmp_path)}})
    assert finding == ("ERROR", reason, "spec.calibration.file.uri")


def test_a_folder_is_no_file(source, tmp_path):
    (tmp_path / "folder.txt").mkdir()
    (finding,) = found(source, {"file": {"uri": str(tmp_path / "folder.txt")}})
    assert finding == ("ERROR", "TEXT_FILE_UNREADABLE", "spec.calibration.file.uri")


def test_a_large_file_is_read_in_parts(source, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "MIN_READ_BYTES", 1 << 16)
    path = tmp_path / "large.txt"
    path.write_text("\n\n".join([TEXT] * 20))
    sizes = {"num_samples": 4, "sequence_length": 64}
    (finding,) = found(source, {"file": {"uri": str(path)}, **sizes})
    assert finding == ("INFO", "TEXT_READ_IN_PARTS", "spec.calibration.file.uri")


def test_measuring_on_the_calibration_text(source, tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    config = {"file": {"uri": str(tmp_path / "a.txt")}, "num_samples": 2, "sequence_length": 64}
    (finding,) = found(source, config, config)
    assert finding == (
        "WARNING",
        "EVALUATION_ON_CALIBRATION_TEXT",
        "spec.evaluation.file.uri",
    )


def test_without_usable_data_the_plan_says_zero(source):
    usage = data_plan(source, {**ENOUGH, "texts": {"texts": ["short"]}}).usage
    assert (usage.samples_requested, usage.samples_usable, usage.tokens) == (4, 0, 0)


def test_methods_without_calibration_ignore_it(source):
    assert found(source, ENOUGH, calibrated=False) == [
        ("INFO", "CALIBRATION_IGNORED", "spec.calibration")
    ]
    assert found(source, None, {"num_samples": 1}, calibrated=False) == [
        ("INFO", "EVALUATION_IGNORED", "spec.evaluation")
    ]
    assert found(source, calibrated=False) == []


def test_the_planner_tells_it(source):
    calibration = msgspec.convert(ENOUGH, CalibrationConfig)
    report = planned(specification(source, "", "gguf", calibration=calibration))
    (finding,) = [one for one in report.findings if one.field == "spec.calibration"]
    assert (finding.reason, finding.severity) == ("CALIBRATION_IGNORED", Severity.INFO)
    assert report.executable
    assert report.plan.calibration is None
