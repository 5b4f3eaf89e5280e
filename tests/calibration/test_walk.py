"""The walk against whole models of transformers, run in one piece."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.calibration.families import FAMILIES, make, sequences
from tests.calibration.opened import opened
from torch import nn
from torch.nn import functional

from quantd_server.calibration.activations import ActivationStore
from quantd_server.calibration.block_step import Stage
from quantd_server.calibration.experts import EXPERT_NAMES
from quantd_server.calibration.linears import Linear, is_linear
from quantd_server.calibration.walk import BlockWalk, micro_batches


@contextmanager
def walking(folder: Path, *, budget: int = 1 << 30, **options: Any) -> Iterator[BlockWalk]:
    options = {"bf16_products": False, "step_tokens": 100, "sequences": sequences()} | options
    with opened(folder) as model, ActivationStore(budget, folder) as store:
        yield BlockWalk(model, options.pop("sequences"), store=store, **options)


def final_states(walk: BlockWalk) -> torch.Tensor:
    return torch.cat([walk.states(number) for number in range(len(walk.micro_batches))])


def logits(walk: BlockWalk) -> torch.Tensor:
    model = walk._model
    return model.logits(final_states(walk), 0, model.parameters.read(model.head_name()).float())


def coarse(weight: torch.Tensor) -> torch.Tensor:
    return (weight * 4).round() / 4


def replace_all(stage: Stage) -> dict[str, torch.Tensor]:
    given = {name: coarse(stage.weight(name)) for group in stage.groups for name in group.names}
    for name, weight in given.items():
        stage.replace(name, weight)
    return given


def apply(whole: nn.Module, family: str, given: dict[str, torch.Tensor]) -> None:
    """Gives a whole model the weights, taking experts to their fused parameters."""
    modules = dict(whole.named_modules())
    names = EXPERT_NAMES.get(family)
    with torch.no_grad():
        for name, weight in given.items():
            if names is not None and ".experts." in name:
                path, expert, projection = name.replace(names.module, "mlp").rsplit(".", 2)
                fused = modules[path]
                middle = fused.gate_up_proj.shape[1] // 2
                target = {
                    names.gate: fused.gate_up_proj[int(expert), :middle],
                    names.up: fused.gate_up_proj[int(expert), middle:],
                    names.down: fused.down_proj[int(expert)],
                }[projection]
                target.copy_(weight)
            else:
                is_conv = not isinstance(modules[name], nn.Linear)
                modules[name].weight.copy_(weight.T if is_conv else weight)


def seen_by_linears(
    whole: nn.Module, family: str, batch: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> dict[str, torch.Tensor]:
    """Inputs of all linears of a whole model, [tokens, K], by checkpoint name."""
    seen: dict[str, torch.Tensor] = {}
    names = EXPERT_NAMES.get(family)
    # Where a weight lies in memory tells whose it is, rows of fused experts included.
    places = {
        module.weight.data_ptr(): [name]
        for name, module in whole.named_modules()
        if isinstance(module, nn.Linear)
    }
    for name, module in whole.named_modules():
        if names is not None and hasattr(module, "gate_up_proj"):
            for expert in range(len(module.gate_up_proj)):
                path = f"{name.replace('.mlp.', f'.{names.module}.')}.{expert}"
                both = [f"{path}.{names.gate}", f"{path}.{names.up}"]
                places[module.gate_up_proj[expert].data_ptr()] = both
                places[module.down_proj[expert].data_ptr()] = [f"{path}.{names.down}"]
    handles = [
        module.register_forward_pre_hook(
            lambda _, args, name=name: seen.__setitem__(name, args[0].flatten(0, -2))
        )
        for name, module in whole.named_modules()
        if is_linear(module) and not isinstance(module, nn.Linear)
    ]
    original = functional.linear

    def linear(value, weight, bias=None):
        for name in places.get(weight.data_ptr(), []):
            seen[name] = value.flatten(0, -2)
        return original(value, weight, bias)

    with monkeypatch.context() as patch:
        patch.setattr(functional, "linear", linear)
        whole(batch, use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("family", FAMILIES)
def test_a_walk_that_replaces_nothing_ends_in_the_models_logits(family, tmp_path):
    whole = make(family, tmp_path / "model")
    expected = whole(torch.stack(sequences()), use_cache=False).logits
    with walking(tmp_path / "model") as walk:
        for _ in walk:
            pass
        torch.testing.assert_close(logits(walk), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_stages_see_the_results_of_the_weights_replaced_before_them(family, tmp_path, monkeypatch):
    whole = make(family, tmp_path / "model", num_hidden_layers=2)
    whole.set_experts_implementation("eager") if family in EXPERT_NAMES else None
    batch = torch.stack(sequences())
    checked = set()
    with walking(tmp_path / "model") as walk:
        for block in walk:
            for stage in block.stages():
                # The whole model has all earlier replacements and none of this stage.
                seen = seen_by_linears(whole, family, batch, monkeypatch)
                for group in stage.groups:
                    found = group.statistics()
                    for name in group.names:
                        inputs = seen[name].double() if name in seen else torch.zeros(0, 1)
                        checked.add(name)
                        assert found.tokens == len(inputs)
                        assert torch.equal(found.gram, found.gram.T)
                        found.gram.diagonal().add_(0.0)  # The caller may damp it in place.
                        if len(inputs):
                            close(found.gram, inputs.T @ inputs)
                            close(found.mean_abs, inputs.abs().mean(0))
                apply(whole, family, replace_all(stage))
            assert checked.issuperset(block.linear_names)
        expected = whole(batch, use_cache=False).logits
        torch.testing.assert_close(logits(walk), expected, rtol=1e-4, atol=1e-4)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (
            "llama",
            [
                [("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")],
                [("self_attn.o_proj",)],
                [("mlp.gate_proj", "mlp.up_proj")],
                [("mlp.down_proj",)],
            ],
        ),
        (
            "phi",
            [
                [
                    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.fc1"),
                ],
                [("self_attn.dense",), ("mlp.fc2",)],
            ],
        ),
        (
            "mixtral",
            [
                [("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")],
                [("self_attn.o_proj",)],
                [
                    (f"block_sparse_moe.experts.{n}.w1", f"block_sparse_moe.experts.{n}.w3")
                    for n in range(4)
                ],
                [(f"block_sparse_moe.experts.{n}.w2",) for n in range(4)],
            ],
        ),
    ],
)
def test_stages_come_in_the_order_of_their_dependence(family, expected, tmp_path):
    make(family, tmp_path / "model")
    with walking(tmp_path / "model") as walk:
        for block in walk:
            prefix = f"model.layers.{block.index}."
            found = [
                sorted(
                    tuple(name.removeprefix(prefix) for name in group.names)
                    for group in stage.groups
                )
                for stage in block.stages()
            ]
            assert found == [sorted(groups) for groups in expected]


def test_experts_that_no_token_reaches_are_given_without_tokens(tmp_path):
    make("qwen3_moe", tmp_path / "model", num_experts=16, num_experts_per_tok=1)
    counts: Counter[int] = Counter()
    with walking(tmp_path / "model", sequences=sequences(1, length=6)) as walk:
        for block in walk:
            names = []
            for stage in block.stages():
                for group in stage.groups:
                    found = group.statistics()
                    names += group.names
                    if ".experts." in group.names[0]:
                        counts[found.tokens] += 1
                        if not found.tokens:
                            assert not found.gram.any()
                            assert not found.mean_abs.any()
                replace_all(stage)
            assert sorted(names) == sorted(block.linear_names)
    assert counts[0] > 0
    assert sum(tokens * times for tokens, times in counts.items()) == 3 * 2 * 6


@pytest.mark.parametrize("family", ["llama", "opt", "qwen2_moe"])
def test_spilled_activations_give_the_same_bits(family, tmp_path):
    make(family, tmp_path / "model")
    results = []
    for budget in (1 << 30, 20_000, 0):
        grams = []
        with walking(tmp_path / "model", budget=budget) as walk:
            for block in walk:
                for stage in block.stages():
                    grams += [group.statistics().gram for group in stage.groups]
                    replace_all(stage)
            assert (walk._store.spilled_bytes > 0) == (budget < 1 << 30)
            assert walk._store.memory_bytes <= budget
            results.append((grams, final_states(walk)))
    for grams, states in results[1:]:
        assert all(map(torch.equal, grams, results[0][0]))
        assert torch.equal(states, results[0][1])


@pytest.mark.parametrize("family", FAMILIES)
def test_each_linear_is_multiplied_once_per_token_and_attention_once(family, tmp_path, monkeypatch):
    make(family, tmp_path / "model")
    tokens: Counter[str] = Counter()
    attention: Counter[int] = Counter()
    multiply = Linear.multiply
    attend = functional.scaled_dot_product_attention

    def counting(self, value, dtype):
        tokens[self.name] += value.shape[:-1].numel()
        return multiply(self, value, dtype)

    def counting_attention(query, *args, **kwargs):
        attention[query.shape[-2]] += len(query)
        return attend(query, *args, **kwargs)

    monkeypatch.setattr(Linear, "multiply", counting)
    monkeypatch.setattr(functional, "scaled_dot_product_attention", counting_attention)
    samples = sequences(5)
    total = sum(map(len, samples))
    with walking(tmp_path / "model", sequences=samples) as walk:
        for block in walk:
            for stage in block.stages():
                replace_all(stage)
    for name, count in tokens.items():
        if ".experts." not in name:
            assert count == total, name
    per_expert = [count for name, count in tokens.items() if ".experts." in name]
    if per_expert:
        assert sum(per_expert) == 3 * 3 * 2 * total  # blocks, projections, experts a token
    assert attention[len(samples[0])] in {0, 3 * len(samples)}  # 0: without sdpa


def test_without_sequence_every_linear_sees_the_original_model(tmp_path, monkeypatch):
    whole = make("llama", tmp_path / "model")
    batch = torch.stack(sequences())
    with walking(tmp_path / "model", sequential=False) as walk:
        for block in walk:
            (stage,) = block.stages()  # Asking for the next would go on.
            del stage
        states = final_states(walk)
    with walking(tmp_path / "model", sequential=False) as walk:
        for block in walk:
            seen = seen_by_linears(whole, "llama", batch, monkeypatch)
            for stage in block.stages():
                for group in stage.groups:
                    inputs = seen[group.names[0]].double()
                    close(group.statistics().gram, inputs.T @ inputs)
                given = replace_all(stage)
            apply(whole, "llama", given)
        assert not torch.equal(final_states(walk), states)
        expected = whole(batch, use_cache=False).logits
        torch.testing.assert_close(logits(walk), expected, rtol=1e-4, atol=1e-4)


def test_only_targets_are_given(tmp_path):
    make("llama", tmp_path / "model")
    targets = {"model.layers.1.mlp.up_proj", "model.layers.2.self_attn.o_proj"}
    with walking(tmp_path / "model", targets=targets) as walk:
        found = [
            name
            for block in walk
            for stage in block.stages()
            for group in stage.groups
            for name in group.names
        ]
    assert found == sorted(targets)


def test_products_in_bfloat16_stay_close(tmp_path):
    make("llama", tmp_path / "model")
    results = []
    for bf16 in (False, True):
        with walking(tmp_path / "model", bf16_products=bf16) as walk:
            grams = [
                group.statistics().gram
                for block in walk
                for stage in block.stages()
                for group in stage.groups
            ]
            results.append([*grams, final_states(walk)])
    for exact, rounded in zip(*results, strict=True):
        error = float((exact - rounded).norm() / exact.norm())
        assert 0 < error < 0.02


def test_progress_grows_to_the_end_of_every_block(tmp_path):
    make("llama", tmp_path / "model")
    told: list[float] = []
    with walking(tmp_path / "model", on_progress=told.append) as walk:
        for block in walk:
            for stage in block.stages():
                for group in stage.groups:
                    group.statistics()
            block.finish()
            assert told == sorted(told)
            assert told[-1] == 1.0
            assert len(set(told)) > 10
            told.clear()


def walk_to_the_end(walk: BlockWalk) -> None:
    for block in walk:
        for stage in block.stages():
            for group in stage.groups:
                group.statistics()


@pytest.mark.parametrize("calls", [1, 5, 30, 60])
def test_a_cancelled_walk_stops_and_leaves_the_model_usable(calls, tmp_path):
    make("llama", tmp_path / "model")
    left = calls

    class Cancelled(Exception):
        pass

    def check() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Cancelled

    with opened(tmp_path / "model") as model, ActivationStore(1 << 30, tmp_path) as store:
        walk = BlockWalk(model, sequences(), store=store, step_tokens=48, check_cancelled=check)
        with pytest.raises(Cancelled):
            walk_to_the_end(walk)
        assert all(value.is_meta for block in model.blocks for value in block.parameters())
        assert len(list(BlockWalk(model, sequences(), store=store))) == 3


def test_micro_batches_hold_sequences_of_one_length():
    samples = [torch.arange(length) for length in (5, 3, 5, 5, 3, 5, 9)]
    found = micro_batches(samples, tokens=11)
    assert [tuple(batch.shape) for batch in found] == [(2, 5), (2, 5), (2, 3), (1, 9)]
