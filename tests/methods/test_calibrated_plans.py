"""Plans of GPTQ, AWQ and AQLM: names, types and shapes of all that will be stored."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tests import header_checkpoints, tiny_models
from tests.quantizing import method_config, planned, specification

from quantd_server.checkpoint.opening import open_checkpoint
from quantd_server.methods.base import TensorTask, WorkOptions, WorkPlan
from quantd_server.methods.registry import ALL_METHODS
from quantd_server.planning.config_parsing.parsing import parse_config

HIDDEN, INNER, KEYS = 128, 256, 64


def source(folder: Path, family: str = "llama", **options: Any) -> Path:
    sizes = {"hidden": HIDDEN, "intermediate": INNER, "heads": 4, "kv_heads": 2} | options
    config = tiny_models.config(family, **sizes)
    return header_checkpoints.write(folder, config, tiny_models.shapes(config))


def work(folder: Path, method: str, config: dict[str, Any] | None = None) -> WorkPlan:
    chosen = ALL_METHODS[method]
    resolved = chosen.resolve(method_config(method, config).value)
    return chosen.prepare(resolved, open_checkpoint(folder), WorkOptions())


def task_of(plan: WorkPlan, name: str) -> TensorTask:
    (task,) = [task for task in plan.tasks if task.source and task.source.name == name]
    return task


def parts_of(plan: WorkPlan, module: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    task = task_of(plan, f"{module}.weight")
    assert all(part.name.startswith(f"{module}.") for part in task.parts)
    return {part.name.removeprefix(f"{module}."): (part.dtype, part.shape) for part in task.parts}


def quantization_config(plan: WorkPlan) -> dict[str, Any]:
    return json.loads(plan.texts["config.json"])["quantization_config"]


def files_are_filled(plan: WorkPlan) -> bool:
    """Whether the parts and the headers cover every file, without a gap or an overlap."""
    for file in plan.files:
        places = sorted(
            (part.offset, part.nbytes)
            for task in plan.tasks
            for part in task.parts
            if part.file == file.name
        )
        end = len(file.header)
        for offset, nbytes in places:
            if offset != end:
                return False
            end += nbytes
        if end != file.size:
            return False
    return True


DOWN = "model.layers.1.mlp.down_proj"  # K = 256 inputs, N = 128 outputs
KEY = "model.layers.0.self_attn.k_proj"  # K = 128, N = 64


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group_size", [-1, 32, 128])
def test_gptq_shapes(tmp_path, bits, group_size) -> None:
    plan = work(source(tmp_path / "s"), "gptq", {"bits": bits, "group_size": group_size})
    for module, inputs, outputs in ((DOWN, INNER, HIDDEN), (KEY, HIDDEN, KEYS)):
        groups = 1 if group_size == -1 else inputs // group_size
        assert parts_of(plan, module) == {
            # 32 codes fill `bits` words, along the inputs or along the outputs.
            "qweight": ("I32", (inputs // 32 * bits, outputs)),
            "qzeros": ("I32", (groups, outputs // 32 * bits)),
            "scales": ("F16", (groups, outputs)),
            "g_idx": ("I32", (inputs,)),
        }
        assert task_of(plan, f"{module}.weight").target_type == f"GPTQ{bits}"
    assert files_are_filled(plan)


@pytest.mark.parametrize("group_size", [-1, 16, 64, 128])
def test_awq_shapes(tmp_path, group_size) -> None:
    plan = work(source(tmp_path / "s"), "awq", {"group_size": group_size})
    for module, inputs, outputs in ((DOWN, INNER, HIDDEN), (KEY, HIDDEN, KEYS)):
        groups = 1 if group_size == -1 else inputs // group_size
        assert parts_of(plan, module) == {
            "qweight": ("I32", (inputs, outputs // 8)),
            "qzeros": ("I32", (groups, outputs // 8)),
            "scales": ("F16", (groups, outputs)),
        }
    assert files_are_filled(plan)


def test_sizes_of_an_int4_model_by_hand(tmp_path) -> None:
    plan = work(source(tmp_path / "s", layers=1), "gptq")
    task = task_of(plan, "model.layers.0.mlp.down_proj.weight")
    # 4 bits a weight; a float16 scale and a 4-bit zero point for 128; 4 bytes an input channel.
    weights = INNER * HIDDEN
    assert task.target_bytes == weights // 2 + weights // 128 * 2 + weights // 128 // 2 + 4 * INNER


def test_blocks_and_what_is_kept(tmp_path) -> None:
    plan = work(source(tmp_path / "s", tied=False, layers=3), "gptq")
    for task in plan.tasks:
        assert task.source
        name = task.source.name
        if task.action == "QUANTIZE":
            assert task.block == int(name.split(".")[2])
        else:
            assert (task.action, task.block, task.target_type) == ("KEEP", None, "BF16")
            assert (task.parts[0].dtype, task.parts[0].shape) == ("BF16", task.shape)
    kept = {task.source.name: task.reason for task in plan.tasks if task.action == "KEEP"}
    assert kept["lm_head.weight"] == "output head"
    assert kept["model.embed_tokens.weight"] == "embedding"
    assert kept["model.norm.weight"] == "norm"
    assert len(kept) == 3 + 3 * 2


def test_the_output_head_comes_after_the_last_block(tmp_path) -> None:
    config = tiny_models.config(hidden=HIDDEN, intermediate=INNER, tied=False)
    shapes = tiny_models.shapes(config) | {
        "lm_head.weight": (320, HIDDEN),
        "model.embed_tokens.weight": (320, HIDDEN),
    }
    folder = header_checkpoints.write(tmp_path / "s", config, shapes)
    plan = work(folder, "gptq", {"lm_head": True})
    assert task_of(plan, "lm_head.weight").block == 2
    assert parts_of(plan, "lm_head")["qweight"] == ("I32", (HIDDEN // 8, 320))
    assert quantization_config(plan)["lm_head"] is True
    assert quantization_config(work(folder, "gptq"))["lm_head"] is False


def test_weights_of_conv1d_are_quantized_as_out_in(tmp_path) -> None:
    plan = work(source(tmp_path / "s", "gpt2"), "gptq")
    task = task_of(plan, "transformer.h.0.mlp.c_fc.weight")
    assert (task.shape, task.target_shape) == ((HIDDEN, 4 * HIDDEN), (4 * HIDDEN, HIDDEN))
    assert task.transform == "transpose"
    assert parts_of(plan, "transformer.h.0.mlp.c_fc")["scales"] == ("F16", (1, 4 * HIDDEN))
    assert task_of(plan, "transformer.h.0.mlp.c_fc.bias").action == "KEEP"


def test_rules_for_modules(tmp_path) -> None:
    rules = [
        {"pattern": r"layers\.0\.mlp", "exclude": True},
        {"pattern": "down_proj", "bits": 8, "group_size": 64},
        {"pattern": "mlp", "bits": 3, "group_size": -1},
        {"pattern": "down_proj", "bits": 2},
    ]
    folder = source(tmp_path / "s")
    plan = work(folder, "gptq", {"dynamic": rules})
    kinds = {
        task.source.name: (task.target_type, task.reason) for task in plan.tasks if task.source
    }
    assert kinds["model.layers.0.mlp.up_proj.weight"] == ("BF16", r"excluded by layers\.0\.mlp")
    assert kinds["model.layers.1.mlp.down_proj.weight"][0] == "GPTQ8"
    assert kinds["model.layers.1.mlp.up_proj.weight"][0] == "GPTQ3"
    assert kinds["model.layers.1.self_attn.q_proj.weight"][0] == "GPTQ4"
    assert parts_of(plan, DOWN)["scales"] == ("F16", (INNER // 64, HIDDEN))
    assert parts_of(plan, "model.layers.1.mlp.up_proj")["scales"] == ("F16", (1, INNER))
    # The configuration says the same to GPTQModel, and reads back as it was.
    entry = quantization_config(plan)
    assert list(entry["dynamic"]) == [
        r"-:.*(?:layers\.0\.mlp)",
        "+:.*(?:down_proj)",
        "+:.*(?:mlp)",
    ]
    read = parse_config(json.dumps(entry)).method
    assert read is not None
    assert read.gptq is not None
    assert [rule.pattern for rule in read.gptq.dynamic] == [rule["pattern"] for rule in rules[:3]]


@pytest.mark.parametrize(
    ("config", "format_", "act_group_aware"),
    [
        ({}, "GPTQ", True),
        ({"sym": False}, "GPTQ_V2", True),
        ({"dynamic": [{"pattern": "q", "sym": False}]}, "GPTQ_V2", True),
        ({"dynamic": [{"pattern": "q", "sym": False, "exclude": True}]}, "GPTQ", True),
        ({"desc_act": True}, "GPTQ", False),
        ({"group_size": -1}, "GPTQ", False),
        ({"act_group_aware": False, "format": "GPTQ_V2"}, "GPTQ_V2", False),
    ],
)
def test_defaults_of_gptq(config, format_, act_group_aware) -> None:
    resolved = ALL_METHODS["gptq"].resolve(method_config("gptq", config).value)
    assert (resolved.format, resolved.act_group_aware) == (format_, act_group_aware)
    assert (resolved.bits, resolved.damp_percent, resolved.block_size) == (4, 0.05, 128)
    assert ALL_METHODS["gptq"].resolve(resolved) == resolved


@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("gptq", {}),
        ("gptq", {"bits": 3, "sym": False, "group_size": -1, "mse": 2.4, "block_size": 64}),
        ("gptq", {"awq_scaling": True, "desc_act": True, "damp_percent": 0.1}),
        ("awq", {}),
        ("awq", {"group_size": 64, "n_grid": 10, "gptq_solver": True, "apply_clip": False}),
        ("aqlm", {"nbits_per_codebook": 8, "num_codebooks": 2}),
    ],
)
def test_the_written_configuration_reads_back(tmp_path, method, config) -> None:
    folder = source(tmp_path / "s")
    plan = work(folder, method, config)
    parsed = parse_config(json.dumps(quantization_config(plan)))
    assert not [item for item in parsed.findings if item.severity != "INFO"], parsed.findings
    assert parsed.method is not None
    resolved = ALL_METHODS[method].resolve(method_config(method, config).value)
    read = parsed.method.value
    for field in resolved.__struct_fields__:
        if getattr(resolved, field) != ():
            assert getattr(read, field) == getattr(resolved, field), field


# -- AWQ -----------------------------------------------------------------------------------------


def rescaled(plan: WorkPlan) -> dict[str, str]:
    found = {}
    for task in plan.tasks:
        if task.action == "RESCALE":
            assert task.source
            assert task.block == int(task.source.name.split(".")[2])
            assert (task.parts[0].dtype, task.parts[0].shape) == (task.source.dtype, task.shape)
            found[task.source.name] = task.reason
    return found


def test_awq_rescales_norms(tmp_path) -> None:
    plan = work(source(tmp_path / "s"), "awq")
    assert rescaled(plan) == {
        f"model.layers.{block}.{norm}.weight": "norm, takes up the inverse of the input scales"
        for block in (0, 1)
        for norm in ("input_layernorm", "post_attention_layernorm")
    }


def test_gptq_rescales_only_when_asked(tmp_path) -> None:
    folder = source(tmp_path / "s")
    assert rescaled(work(folder, "gptq")) == {}
    scaled = work(folder, "gptq", {"awq_scaling": True})
    assert rescaled(scaled) == rescaled(work(folder, "awq"))


def test_values_are_scaled_where_each_query_head_has_its_own(tmp_path) -> None:
    config = {"modules_to_not_convert": ["self_attn.v_proj", "mlp.up_proj"]}
    plan = work(source(tmp_path / "a", "qwen2", kv_heads=4), "awq", config)
    changed = rescaled(plan)
    assert changed["model.layers.0.self_attn.v_proj.weight"].startswith("linear layer, takes up")
    assert changed["model.layers.0.self_attn.v_proj.bias"].startswith("bias of a linear layer")
    assert changed["model.layers.1.mlp.up_proj.weight"].startswith("linear layer, takes up")
    grouped = rescaled(work(source(tmp_path / "b", "qwen2", kv_heads=2), "awq", config))
    assert "model.layers.0.self_attn.v_proj.bias" not in grouped
    # It reads the same norm as q_proj and k_proj all the same.
    assert grouped["model.layers.0.self_attn.v_proj.weight"].startswith("reads the same input")


def test_a_norm_whose_readers_are_all_kept_is_kept(tmp_path) -> None:
    names = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
    plan = work(source(tmp_path / "s"), "awq", {"modules_to_not_convert": names})
    assert task_of(plan, "model.layers.0.input_layernorm.weight").action == "KEEP"
    assert task_of(plan, "model.layers.0.self_attn.q_proj.weight").action == "KEEP"


def test_a_router_takes_up_the_scales_of_its_norm(tmp_path) -> None:
    folder = header_checkpoints.write(tmp_path / "s", *header_checkpoints.mixture())
    changed = rescaled(work(folder, "awq"))
    assert changed["model.layers.0.mlp.gate.weight"].startswith("reads the same input")
    assert "model.layers.0.post_attention_layernorm.weight" in changed
    fused = header_checkpoints.write(tmp_path / "f", *header_checkpoints.mixture(fused=True))
    assert not [name for name in rescaled(work(fused, "awq")) if "mlp" in name or "post" in name]


@pytest.mark.parametrize(
    ("names", "written"),
    [
        ([], None),
        (["down_proj"], ["down_proj"]),
        (["mlp.down_proj", "model.layers.0.self_attn"], None),
        # Some reader would find "layers.1" in "layers.10", and "model.layers.1" as well.
        (["model.layers.1"], None),
    ],
)
def test_what_readers_of_awq_leave_out_is_what_is_kept(tmp_path, names, written) -> None:
    folder = source(tmp_path / "s", layers=11)
    plan = work(folder, "awq", {"modules_to_not_convert": names})
    entries = quantization_config(plan)["modules_to_not_convert"]
    if written or not names:
        assert entries == written
    for task in plan.tasks:
        assert task.source
        module = task.source.name.removesuffix(".weight")
        if module.endswith("_proj"):
            # vLLM and AutoAWQ look for an entry anywhere in a name.
            assert any(entry in module for entry in entries or []) == (task.action != "QUANTIZE")


# -- AQLM ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codebooks", "bits", "in_group", "out_group", "dtype"),
    [(1, 8, 8, 1, "I8"), (2, 8, 8, 1, "I8"), (1, 9, 4, 1, "I16"), (1, 8, 4, 2, "I8")],
)
def test_aqlm_shapes(tmp_path, codebooks, bits, in_group, out_group, dtype) -> None:
    config = {
        "num_codebooks": codebooks,
        "nbits_per_codebook": bits,
        "in_group_size": in_group,
        "out_group_size": out_group,
    }
    plan = work(source(tmp_path / "s"), "aqlm", config)
    assert parts_of(plan, DOWN) == {
        "codes": (dtype, (HIDDEN // out_group, INNER // in_group, codebooks)),
        "codebooks": ("F16", (codebooks, 2**bits, out_group, in_group)),
        "scales": ("F16", (HIDDEN // out_group, 1, 1, 1)),
    }
    assert task_of(plan, f"{DOWN}.weight").target_type == f"AQLM{codebooks}x{bits}"
    assert files_are_filled(plan)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("bits", [8, 9])
@pytest.mark.parametrize("leave_out", [False, True])
def test_aqlm_is_the_state_of_the_model_of_transformers(tmp_path, family, bits, leave_out) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("aqlm")
    from transformers import AqlmConfig, AutoConfig, AutoModelForCausalLM
    from transformers.quantizers.quantizer_aqlm import replace_with_aqlm_linear

    folder = source(tmp_path / "s", family, tied=False)
    config: dict[str, Any] = {"nbits_per_codebook": bits}
    if leave_out:
        config["linear_weights_not_to_quantize"] = ["lm_head.weight", f"{DOWN}.weight"]
    plan = work(folder, "aqlm", config)
    entry = AqlmConfig.from_dict(quantization_config(plan))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    replaced = replace_with_aqlm_linear(
        model,
        modules_to_not_convert=entry.linear_weights_not_to_quantize,
        quantization_config=entry,
    )
    state = replaced.state_dict()
    theirs = {name: tuple(value.shape) for name, value in state.items()}
    ours = {part.name: part.shape for task in plan.tasks for part in task.parts}
    assert ours == theirs
    widths = {"I8": torch.int8, "I16": torch.int16}
    for task in plan.tasks:
        if task.action == "QUANTIZE":
            assert widths[task.parts[0].dtype] == state[task.parts[0].name].dtype


def test_bits_of_aqlm_are_those_of_published_figures() -> None:
    from quantd_server.methods.aqlm.shape import CodeShape

    def rate(shape: CodeShape, rows: int, columns: int) -> float:
        return shape.stored_bits(rows, columns) / (rows * columns)

    one = CodeShape(codebooks=1, bits=16, in_group=8, out_group=1)
    two = CodeShape(codebooks=2, bits=8, in_group=8, out_group=1)
    assert rate(one, 4096, 4096) == pytest.approx(2.504, abs=1e-3)
    assert rate(two, 4096, 4096) == pytest.approx(2.008, abs=1e-3)
    assert rate(one, 11008, 4096) == pytest.approx(2.190, abs=1e-3)
    assert rate(one, 576, 576) == pytest.approx(27.3, abs=0.05)


# -- all -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "config"), [("gptq", {}), ("awq", {}), ("aqlm", {"nbits_per_codebook": 8})]
)
def test_plans_in_pages_and_shards(tmp_path, method, config) -> None:
    folder = source(tmp_path / "s")
    report = planned(specification(folder, "", method, config))
    plan = work(folder, method, config)
    assert report.plan is not None
    assert report.plan.output_bytes == sum(file.size for file in plan.files)
    assert [tensor.target_bytes for tensor in report.tensors] == [
        sum(math.prod(part.shape) * {"I32": 4, "I8": 1}.get(part.dtype, 2) for part in task.parts)
        for task in plan.tasks
    ]
    shards = ALL_METHODS[method].prepare(
        ALL_METHODS[method].resolve(method_config(method, config).value),
        open_checkpoint(folder),
        WorkOptions(max_shard_size=50_000),
    )
    assert len(shards.files) > 2
    assert files_are_filled(shards)
    index = json.loads(shards.texts["model.safetensors.index.json"])["weight_map"]
    assert index == {part.name: part.file for task in shards.tasks for part in task.parts}
    for task in shards.tasks:
        assert len({part.file for part in task.parts}) == 1
