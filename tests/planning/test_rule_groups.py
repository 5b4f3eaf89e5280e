"""Each rule that a request, a checkpoint or a target can break, broken alone.

The groups are those in which the rules were collected: 1 the form of a request, 2 bitsandbytes,
3 GPTQ, 4 AWQ, 5 AQLM, 6 GGUF, 7 all methods, 8 serve targets, 9 what is published.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import protovalidate
import pytest
from tests import header_checkpoints, hosts, tiny_models
from tests.quantizing import planned, specification

from quantd import v1
from quantd_server.calibration.config import CalibrationConfig, CalibrationTokens, TokenSequence
from quantd_server.checkpoint.opening import open_checkpoint
from quantd_server.engine.specification import ServeTarget
from quantd_server.errors import Finding, Severity
from quantd_server.methods.base import WorkOptions
from quantd_server.methods.configs import MethodConfig
from quantd_server.methods.registry import ALL_METHODS
from quantd_server.planning.serve_targets import RULES

METHODS = tuple(ALL_METHODS)

FITTING: dict[str, dict[str, Any]] = {
    "bitsandbytes_8bit": {},
    "bitsandbytes_4bit": {},
    "gptq": {},
    "awq": {},
    "gguf": {"file_type": "Q8_0"},
    "aqlm": {"nbits_per_codebook": 8},
}
"""A configuration of each method with which nothing is wrong with a ``model()``."""

CALIBRATED = frozenset({"gptq", "awq", "aqlm"})

CALIBRATION = CalibrationConfig(
    tokens=CalibrationTokens(sequences=(TokenSequence(ids=tuple(range(16))),)), num_samples=1
)
"""Data that nothing is to be said about."""


def model(folder: Path, family: str = "llama", **changes: Any) -> Path:
    """A checkpoint that fits every method, but for ``changes``."""
    dtypes = changes.pop("dtypes", None)
    entries = changes.pop("entries", {})
    tied = changes.pop("tied", True)
    size = {"hidden": 128, "intermediate": 256} | changes
    config = tiny_models.config(family, tied=tied, **size)
    shapes = tiny_models.shapes(config)
    return header_checkpoints.write(folder, config | entries, shapes, dtypes=dtypes)


def findings(spec: Any, host: Any = hosts.NO_GPU) -> list[Finding]:
    return list(planned(spec, host).findings)


def method_specification(source: Path, method: str, config: Any = None, **options: Any) -> Any:
    chosen = FITTING[method] if config is None else config
    if method in CALIBRATED:
        options.setdefault("calibration", CALIBRATION)
    return specification(source, options.pop("output", ""), method, chosen, **options)


# -- 1 to 5: rules of the messages, which every client can check ------------------------------

SPEC_RULES = [
    (1, {}, "required"),
    (2, {"bitsandbytes_8bit": {"llm_int8_threshold": -1.0}}, "double.gte"),
    (2, {"bitsandbytes_8bit": {"llm_int8_threshold": float("inf")}}, "double.finite"),
    (
        2,
        {"bitsandbytes_8bit": {"llm_int8_has_fp16_weight": True}},
        "bitsandbytes_8bit.has_fp16_weight",
    ),
    (2, {"bitsandbytes_4bit": {"bnb_4bit_quant_type": 9}}, "enum.defined_only"),
    (2, {"bitsandbytes_4bit": {"blocksize": 48}}, "uint32.in"),
    (3, {"gptq": {"bits": 5}}, "uint32.in"),
    (3, {"gptq": {"group_size": 100}}, "int32.in"),
    (3, {"gptq": {"damp_percent": 1.0}}, "double.gt_lt"),
    (3, {"gptq": {"desc_act": True, "act_group_aware": True}}, "gptq.act_order_exclusive"),
    (3, {"gptq": {"group_size": -1, "act_group_aware": True}}, "gptq.act_group_aware_needs_groups"),
    (3, {"gptq": {"sym": False, "format": 1}}, "gptq.asymmetric_needs_v2"),
    (4, {"awq": {"bits": 3}}, "uint32.in"),
    (4, {"awq": {"group_size": 256}}, "int32.in"),
    (4, {"awq": {"zero_point": False}}, "awq.gemm_needs_zero_point"),
    (5, {"aqlm": {"nbits_per_codebook": 17}}, "uint32.gte_lte"),
    (5, {"aqlm": {"in_group_size": 0}}, "uint32.gte_lte"),
]


@pytest.mark.parametrize(("group", "fields", "rule"), SPEC_RULES)
def test_a_rule_of_the_messages(group: int, fields: dict[str, Any], rule: str) -> None:
    message = v1.MethodConfig(
        **{
            name: type(getattr(v1.MethodConfig(), name))(**values)
            for name, values in fields.items()
        }
    )
    assert [item.proto.rule_id for item in protovalidate.collect_violations(message)] == [rule]


# -- 2 to 6: rules of a method about a checkpoint -----------------------------------------------

EXCLUDE_ALL = [{"pattern": ".", "exclude": True}]
LINEARS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
LINEARS += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]

METHOD_RULES: list[tuple[int, str, dict[str, Any], dict[str, Any], str, Severity, str]] = [
    # group, method, configuration, model, reason, severity, field below the method
    (
        2,
        "bitsandbytes_8bit",
        {"llm_int8_skip_modules": ["no_such"]},
        {},
        "PATTERN_UNMATCHED",
        Severity.WARNING,
        "llm_int8_skip_modules",
    ),
    (
        2,
        "bitsandbytes_8bit",
        {"llm_int8_skip_modules": ["model"]},
        {},
        "NOTHING_TO_QUANTIZE",
        Severity.ERROR,
        "",
    ),
    # QUANT_STORAGE_UNFIT comes with BLOCKS_CROSS_ROWS: see test_planner.py.
    (
        2,
        "bitsandbytes_4bit",
        {"blocksize": 512},
        {},
        "BLOCKS_CROSS_ROWS",
        Severity.WARNING,
        "blocksize",
    ),
    (
        3,
        "gptq",
        {},
        {"intermediate": 192},
        "GROUP_SIZE_DOES_NOT_DIVIDE",
        Severity.ERROR,
        "group_size",
    ),
    (
        3,
        "gptq",
        {"group_size": 16},
        {"intermediate": 272},
        "SHAPE_NOT_PACKABLE",
        Severity.ERROR,
        "",
    ),
    (3, "gptq", {"dynamic": EXCLUDE_ALL}, {}, "NOTHING_TO_QUANTIZE", Severity.ERROR, ""),
    (
        3,
        "gptq",
        {"dynamic": [{"pattern": "("}]},
        {},
        "PATTERN_INVALID",
        Severity.ERROR,
        "dynamic[0].pattern",
    ),
    (
        3,
        "gptq",
        {"dynamic": [{"pattern": "mlp", "bits": 8}, {"pattern": "up_proj", "bits": 2}]},
        {},
        "PATTERN_UNMATCHED",
        Severity.WARNING,
        "dynamic[1].pattern",
    ),
    (
        3,
        "gptq",
        {"format": "GPTQ", "dynamic": [{"pattern": "mlp", "sym": False}]},
        {},
        "GPTQ_ASYMMETRIC_NEEDS_V2",
        Severity.ERROR,
        "dynamic[0].sym",
    ),
    (3, "gptq", {"lm_head": True}, {}, "OUTPUT_HEAD_TIED", Severity.WARNING, "lm_head"),
    (
        3,
        "gptq",
        {"awq_scaling": True},
        {"family": "gpt2"},
        "ARCHITECTURE_WITHOUT_SCALE_MAPPING",
        Severity.ERROR,
        "awq_scaling",
    ),
    (
        4,
        "awq",
        {},
        {"intermediate": 192},
        "GROUP_SIZE_DOES_NOT_DIVIDE",
        Severity.ERROR,
        "group_size",
    ),
    (
        4,
        "awq",
        {"group_size": -1},
        {"intermediate": 260},
        "SHAPE_NOT_PACKABLE",
        Severity.ERROR,
        "",
    ),
    (4, "awq", {"format": "GEMV"}, {}, "AWQ_FORMAT_NOT_WRITTEN", Severity.ERROR, "format"),
    (
        4,
        "awq",
        {},
        {"family": "gpt2"},
        "ARCHITECTURE_WITHOUT_SCALE_MAPPING",
        Severity.ERROR,
        "",
    ),
    (
        4,
        "awq",
        {"modules_to_not_convert": ["gate"]},
        {},
        "PATTERN_UNMATCHED",
        Severity.WARNING,
        "modules_to_not_convert",
    ),
    (
        4,
        "awq",
        {"modules_to_not_convert": ["model"]},
        {},
        "NOTHING_TO_QUANTIZE",
        Severity.ERROR,
        "",
    ),
    (
        5,
        "aqlm",
        {"nbits_per_codebook": 8},
        {"intermediate": 260},
        "GROUP_SIZE_DOES_NOT_DIVIDE",
        Severity.ERROR,
        "in_group_size",
    ),
    (
        5,
        "aqlm",
        {"nbits_per_codebook": 8, "out_group_size": 3},
        {},
        "GROUP_SIZE_DOES_NOT_DIVIDE",
        Severity.ERROR,
        "out_group_size",
    ),
    (5, "aqlm", {}, {}, "AQLM_TOO_FEW_GROUPS", Severity.ERROR, "nbits_per_codebook"),
    (
        5,
        "aqlm",
        {"nbits_per_codebook": 10},
        {},
        "AQLM_BITS_TOO_MANY",
        Severity.ERROR,
        "nbits_per_codebook",
    ),
    (
        5,
        "aqlm",
        {"nbits_per_codebook": 9},
        {},
        "AQLM_BITS_HIGH",
        Severity.WARNING,
        "nbits_per_codebook",
    ),
    (
        5,
        "aqlm",
        {"nbits_per_codebook": 8},
        {"hidden": 1024, "intermediate": 2048},
        "AQLM_TAKES_LONG",
        Severity.WARNING,
        "",
    ),
    (
        5,
        "aqlm",
        {"nbits_per_codebook": 8, "linear_weights_not_to_quantize": ["no_such.weight"]},
        {},
        "PATTERN_UNMATCHED",
        Severity.WARNING,
        "linear_weights_not_to_quantize",
    ),
    (
        5,
        "aqlm",
        {
            "linear_weights_not_to_quantize": [
                f"model.layers.{block}.{name}.weight" for block in (0, 1) for name in LINEARS
            ]
        },
        {},
        "NOTHING_TO_QUANTIZE",
        Severity.ERROR,
        "",
    ),
]


@pytest.mark.parametrize(
    ("group", "method", "config", "changes", "reason", "severity", "field"), METHOD_RULES
)
def test_a_rule_of_a_method(
    tmp_path: Path,
    group: int,
    method: str,
    config: dict[str, Any],
    changes: dict[str, Any],
    reason: str,
    severity: Severity,
    field: str,
) -> None:
    source = model(tmp_path / "source", **changes)
    (found,) = findings(method_specification(source, method, config))
    assert (found.reason, found.severity) == (reason, severity)
    assert found.field == f"spec.method.{method}" + (f".{field}" if field else "")
    assert found.message
    assert found.remedy


@pytest.mark.parametrize(
    ("file_type", "changes", "reason", "severity"),
    [
        ("Q8_0", {"entries": {"model_type": "odd"}}, "GGUF_ARCHITECTURE_UNSUPPORTED", "ERROR"),
        ("Q2_K_S", {"hidden": 256}, "GGUF_IMATRIX_REQUIRED", "ERROR"),
        ("Q4_K_M", {"hidden": 128}, "GGUF_TYPE_FALLBACK", "WARNING"),
        ("Q8_0", {"intermediate": 272}, "GGUF_ROWS_DO_NOT_FIT", "WARNING"),
    ],
)
def test_a_rule_of_gguf(
    tmp_path: Path, file_type: str, changes: dict[str, Any], reason: str, severity: str
) -> None:
    source = model(tmp_path / "source", **changes)
    (found,) = findings(method_specification(source, "gguf", {"file_type": file_type}))
    assert (found.reason, found.severity) == (reason, severity)


def test_gguf_needs_the_tokenizer(tmp_path: Path) -> None:
    source = model(tmp_path / "source")
    (source / "tokenizer.json").unlink()
    (found,) = findings(method_specification(source, "gguf"))
    assert (found.reason, found.severity) == ("TOKENIZER_MISSING", Severity.ERROR)


# -- remedies hold values that would do ----------------------------------------------------------


@pytest.mark.parametrize("method", ["gptq", "awq"])
@pytest.mark.parametrize(
    ("intermediate", "remedy"),
    [(192, "64 or 32 or 16"), (288, "32 or 16"), (136, "-1")],
)
def test_the_remedy_of_a_group_size_works(
    tmp_path: Path, method: str, intermediate: int, remedy: str
) -> None:
    source = model(tmp_path / "source", intermediate=intermediate)
    found = next(
        item
        for item in findings(method_specification(source, method))
        if item.reason == "GROUP_SIZE_DOES_NOT_DIVIDE"
    )
    assert found.remedy.startswith(f"set group_size to {remedy}")
    assert found.subjects == tuple(f"model.layers.{n}.mlp.down_proj.weight" for n in (0, 1))
    for size in re.findall(r"-?\d+", found.remedy.partition(", ")[0])[: remedy.count("or") + 1]:
        again = findings(method_specification(source, method, {"group_size": int(size)}))
        assert "GROUP_SIZE_DOES_NOT_DIVIDE" not in [item.reason for item in again]


@pytest.mark.parametrize(
    ("config", "changes", "number"),
    [
        ({"nbits_per_codebook": 16}, {}, "nbits_per_codebook"),
        ({"nbits_per_codebook": 8, "in_group_size": 24}, {"intermediate": 288}, "in_group_size"),
    ],
)
def test_the_remedy_of_aqlm_works(
    tmp_path: Path, config: dict[str, Any], changes: dict[str, Any], number: str
) -> None:
    source = model(tmp_path / "source", **changes)
    found = findings(method_specification(source, "aqlm", config))[0]
    value = re.match(rf"set {number} to (\d+)", found.remedy)
    assert value
    again = findings(method_specification(source, "aqlm", config | {number: int(value[1])}))
    assert found.reason not in [item.reason for item in again]


# -- 7: rules for all methods --------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_wrong_with_what_the_other_cases_change(tmp_path: Path, method: str) -> None:
    assert findings(method_specification(model(tmp_path / "source"), method)) == []


@pytest.mark.parametrize("method", METHODS)
def test_a_source_that_is_quantized(tmp_path: Path, method: str) -> None:
    entry = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}
    source = model(tmp_path / "source", entries={"quantization_config": entry})
    (found,) = findings(method_specification(source, method))
    assert (found.reason, found.severity) == ("SOURCE_ALREADY_QUANTIZED", Severity.ERROR)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "gguf"])
@pytest.mark.parametrize("dtype", ["F64", "F8_E4M3"])
def test_weights_of_another_type(tmp_path: Path, method: str, dtype: str) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    source = model(tmp_path / "source", dtypes={name: dtype})
    (found,) = findings(method_specification(source, method))
    assert (found.reason, found.severity) == ("WEIGHT_TYPE_NOT_QUANTIZABLE", Severity.ERROR)
    assert found.subjects == (name,)


def test_weights_of_another_type_in_gguf(tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    source = model(tmp_path / "source", dtypes={name: "F8_E4M3"})
    reasons = [item.reason for item in findings(method_specification(source, "gguf"))]
    assert "GGUF_SOURCE_DTYPE_UNSUPPORTED" in reasons


@pytest.mark.parametrize("method", METHODS)
def test_an_output_that_is_not_empty(tmp_path: Path, method: str) -> None:
    source = model(tmp_path / "source")
    output = tmp_path / ("result.gguf" if method == "gguf" else "result")
    output.mkdir()
    (output / "file").touch()
    (found,) = findings(method_specification(source, method, output=output))
    assert (found.reason, found.severity) == ("OUTPUT_NOT_EMPTY", Severity.ERROR)


@pytest.mark.parametrize("method", METHODS)
def test_a_disk_that_is_too_small(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = model(tmp_path / "source")
    output = tmp_path / ("result.gguf" if method == "gguf" else "result")
    usage = msgspec.defstruct("Usage", [("free", int)])
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(free=1 << 20))
    (found,) = findings(method_specification(source, method, output=output))
    assert (found.reason, found.severity) == ("DISK_TOO_SMALL", Severity.ERROR)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "gguf"])
def test_a_tied_output_head_is_in_the_plan(tmp_path: Path, method: str) -> None:
    config = tiny_models.config(hidden=128, intermediate=256, tied=True)
    shapes = tiny_models.shapes(config) | {"lm_head.weight": (tiny_models.VOCABULARY, 128)}
    source = header_checkpoints.write(tmp_path / "source", config, shapes)
    report = planned(method_specification(source, method))
    (head,) = [tensor for tensor in report.tensors if tensor.source_name == "lm_head.weight"]
    assert (head.action, head.reason) == ("DROP", "tied to the token embeddings")


@pytest.mark.parametrize("method", [name for name in METHODS if name != "gguf"])
def test_fused_experts_are_reported(tmp_path: Path, method: str) -> None:
    source = header_checkpoints.write(tmp_path / "s", *header_checkpoints.mixture(fused=True))
    found = {item.reason: item for item in findings(method_specification(source, method))}
    # Published checkpoints of this family hold single experts.
    assert found.keys() == {"EXPERTS_NOT_QUANTIZED", "ARCHITECTURE_NOT_RECOGNIZED"}
    assert found["EXPERTS_NOT_QUANTIZED"].subject_count == 4


@pytest.mark.parametrize(
    ("method", "reasons"),
    [
        ("bitsandbytes_8bit", ["EXPERTS_NOT_QUANTIZED"]),
        ("bitsandbytes_4bit", ["EXPERTS_NOT_QUANTIZED"]),
        ("gptq", []),
        ("awq", []),
        ("aqlm", ["EXPERTS_NOT_QUANTIZED"]),
    ],
)
def test_single_experts_are_quantized_or_reported(
    tmp_path: Path, method: str, reasons: list[str]
) -> None:
    source = header_checkpoints.write(tmp_path / "source", *header_checkpoints.mixture())
    report = planned(method_specification(source, method))
    assert [item.reason for item in report.findings if item.reason in reasons] == reasons
    actions = {tensor.action for tensor in report.tensors if ".experts." in tensor.source_name}
    assert actions == ({"KEEP"} if reasons else {"QUANTIZE"})


@pytest.mark.parametrize(
    ("method", "part"),
    [
        ("bitsandbytes_8bit", "SCB"),
        ("bitsandbytes_4bit", "weight.absmax"),
        ("gptq", "g_idx"),
        ("awq", "qzeros"),
        ("aqlm", "codes"),
    ],
)
def test_a_name_that_scales_would_take(tmp_path: Path, method: str, part: str) -> None:
    config = tiny_models.config(hidden=128, intermediate=256)
    name = f"model.layers.0.mlp.up_proj.{part}"
    source = header_checkpoints.write(
        tmp_path / "source", config, tiny_models.shapes(config) | {name: (4,)}
    )
    (found,) = findings(method_specification(source, method))
    assert (found.reason, found.subjects) == ("TENSOR_NAME_TAKEN", (name,))


# -- 8: serve targets; each rule is in test_serve_targets.py ---------------------------------------


@pytest.mark.parametrize(
    ("method", "config", "changes", "engine", "reason"),
    [
        ("gptq", {"sym": False}, {}, "VLLM", "GPTQ_GRID_NOT_READ"),
        ("gptq", {"bits": 3}, {}, "VLLM", "GPTQ_GRID_NOT_READ"),
        ("gptq", {"group_size": 16}, {}, "VLLM", "GROUP_SIZE_NOT_READ"),
        ("gptq", {"group_size": 32}, {"intermediate": 288}, "VLLM", "MARLIN_SHAPE"),
        ("gptq", {"desc_act": True}, {}, "VLLM", "ACTIVATION_ORDER_SLOW"),
        ("gptq", {"sym": False}, {}, "SGLANG", "GPTQ_V2_NOT_READ"),
        ("gptq", {"bits": 2}, {}, "SGLANG", "MARLIN_NOT_USED"),
        (
            "gptq",
            {"dynamic": [{"pattern": "q_proj", "bits": 8}]},
            {},
            "VLLM",
            "FUSED_MODULES_DIFFER",
        ),
        ("awq", {"group_size": 16}, {}, "VLLM", "MARLIN_NOT_USED"),
        ("aqlm", {"nbits_per_codebook": 8}, {}, "VLLM", "ENGINE_CANNOT_READ"),
        ("aqlm", {"nbits_per_codebook": 8}, {}, "LLAMA_CPP", "ENGINE_CANNOT_READ"),
        ("gptq", {}, {}, "LLAMA_CPP", "ENGINE_CANNOT_READ"),
    ],
)
def test_a_rule_of_a_target(
    tmp_path: Path, method: str, config: Any, changes: Any, engine: Any, reason: str
) -> None:
    source = model(tmp_path / "source", kv_heads=4, **changes)
    targets = (ServeTarget(engine=engine),)
    (found,) = findings(method_specification(source, method, config, serve_targets=targets))
    assert found.reason == reason
    assert found.field == "spec.serve_targets[0]"


def test_what_fits_a_target(tmp_path: Path) -> None:
    source = model(tmp_path / "source", kv_heads=4)
    targets = (ServeTarget(engine="VLLM"), ServeTarget(engine="SGLANG"))
    for method in ("gptq", "awq"):
        assert findings(method_specification(source, method, serve_targets=targets)) == []


# -- the comments of the spec ------------------------------------------------------------------


def comments(file: str) -> str:
    return (Path(__file__).parents[2] / "proto/quantd/v1" / file).read_text()


def test_the_comments_of_a_method_list_its_reasons() -> None:
    for _, method, _, _, reason, _, _ in METHOD_RULES:
        file = "bitsandbytes" if method.startswith("bitsandbytes") else method
        assert reason in comments(f"{file}.proto"), (method, reason)


def test_the_comment_of_serve_targets_lists_their_reasons() -> None:
    listed = r"// - ([A-Z]+): ([^.]*\([A-Z0-9_,\s/]*\))"
    by_severity = dict(re.findall(listed, comments("method.proto")))
    for rule in RULES:
        assert rule.reason in by_severity[rule.severity.value], rule.reason


# -- 9: what is published ------------------------------------------------------------------------

PUBLISHED: dict[str, set[str]] = {
    "gptq": {
        "quant_method", "method", "bits", "group_size", "desc_act", "sym", "lm_head", "format",
        "checkpoint_format", "pack_dtype", "true_sequential", "dynamic", "meta",
    },
    "awq": {
        "quant_method", "bits", "group_size", "zero_point", "version", "modules_to_not_convert",
        "n_grid", "duo_scaling", "apply_clip", "max_shrink", "gptq_solver", "meta",
    },
    "aqlm": {
        "quant_method", "in_group_size", "out_group_size", "num_codebooks", "nbits_per_codebook",
        "linear_weights_not_to_quantize", "relative_mse_tolerance", "max_epochs",
        "steps_per_epoch", "lr", "beam_size", "init_max_iter", "init_max_points_per_centroid",
        "finetune_max_epochs", "finetune_lr", "finetune_batch_size", "finetune_early_stop",
    },
}  # fmt: skip


@pytest.mark.parametrize("method", [name for name in METHODS if name != "gguf"])
def test_the_published_configuration_holds_no_more_than_is_listed(
    tmp_path: Path, method: str
) -> None:
    local = {"_name_or_path": str(tmp_path), "dataset": str(tmp_path / "secret.txt")}
    source = model(tmp_path / "source", entries=local)
    prepare: Callable[..., Any] = ALL_METHODS[method].prepare
    config = msgspec.convert({method: FITTING[method]}, MethodConfig).value
    work = prepare(ALL_METHODS[method].resolve(config), open_checkpoint(source), WorkOptions())
    for text in work.texts.values():
        assert str(tmp_path) not in text
    entry = json.loads(work.texts["config.json"])["quantization_config"]
    if method in PUBLISHED:
        assert entry.keys() <= PUBLISHED[method]
    if method == "gptq":
        assert json.loads(work.texts["quantize_config.json"]) == entry
