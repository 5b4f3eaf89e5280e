"""The walk against whole models of transformers, run in one piece."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tests.calibration.families import FAMILIES, make, sequences
from torch import nn

from quantd_server.calibration.activations import ActivationStore
from quantd_server.calibration.linears import is_linear
from quantd_server.calibration.model import BlockwiseModel
from quantd_server.calibration.parameters import CheckpointParameters
from quantd_server.calibration.walk import BlockWalk
from quantd_server.checkpoint.huggingface import open_huggingface
from quantd_server.checkpoint.reading import TensorReader

EXPERTS = {"qwen3_moe", "qwen2_moe", "mixtral"}


@contextmanager
def opened(folder: Path) -> Iterator[BlockwiseModel]:
    checkpoint = open_huggingface(folder)
    with TensorReader(folder) as reader:
        yield BlockwiseModel(checkpoint.config, CheckpointParameters(checkpoint, reader))


@contextmanager
def walking(folder: Path, tmp_path: Path, budget: int = 1 << 30, **options) -> Iterator[BlockWalk]:
    options = {"bf16_products": False, "step_tokens": 100} | options
    with opened(folder) as model, ActivationStore(budget, tmp_path) as store:
        yield BlockWalk(model, options.pop("sequences", sequences()), store=store, **options)


def final_states(walk: BlockWalk) -> torch.Tensor:
    return torch.cat([walk.states(number) for number in range(len(walk.micro_batches))])


def logits(walk: BlockWalk) -> torch.Tensor:
    model = walk._model
    head = model.parameters.read(model.head_name()).float()
    return model.logits(final_states(walk), 0, head)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_walk_that_replaces_nothing_ends_in_the_models_logits(family, tmp_path):
    whole = make(family, tmp_path / "model")
    expected = whole(torch.stack(sequences()), use_cache=False).logits
    with walking(tmp_path / "model", tmp_path) as walk:
        for block in walk:
            for stage in block.stages():
                for group in stage.groups:
                    for name in group.names:
                        stage.replace(name, stage.weight(name))
        torch.testing.assert_close(logits(walk), expected, rtol=1e-5, atol=1e-5)


def seen_by_linears(whole: nn.Module, batch: torch.Tensor) -> dict[str, torch.Tensor]:
    """Inputs of all linears of the blocks of a whole model, [tokens, K], by name."""
    seen = {}

    def hook(name):
        def record(module, args):
            seen[name] = args[0].flatten(0, -2)

        return record

    handles = [
        module.register_forward_pre_hook(hook(name))
        for name, module in whole.named_modules()
        if is_linear(module)
    ]
    whole(batch, use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in EXPERTS])
def test_stages_see_the_results_of_the_weights_replaced_before_them(family, tmp_path):
    whole = make(family, tmp_path / "model")
    modules = dict(whole.named_modules())
    batch = torch.stack(sequences())
    checked = 0
    with walking(tmp_path / "model", tmp_path) as walk:
        for block in walk:
            for stage in block.stages():
                # The whole model has all earlier replacements and none of this stage.
                seen = seen_by_linears(whole, batch)
                for group in stage.groups:
                    found = group.statistics()
                    for name in group.names:
                        inputs = seen[name].double()
                        assert found.tokens == len(inputs)
                        torch.testing.assert_close(
                            found.gram.double(), inputs.T @ inputs, rtol=1e-4, atol=1e-4
                        )
                        torch.testing.assert_close(
                            found.mean_abs.double(), inputs.abs().mean(0), rtol=1e-4, atol=1e-5
                        )
                        assert torch.equal(found.gram, found.gram.T)
                        checked += 1
                for group in stage.groups:
                    for name in group.names:
                        weight = stage.weight(name)
                        assert weight.shape[1] == group.statistics().gram.shape[0]
                        replacement = (weight * 4).round() / 4
                        stage.replace(name, replacement)
                        is_conv = not isinstance(modules[name], nn.Linear)
                        modules[name].weight.copy_(replacement.T if is_conv else replacement)
        linears = [name for name in seen if "lm_head" not in name and "project_" not in name]
        assert checked == len(linears)
        expected = whole(batch, use_cache=False).logits
        torch.testing.assert_close(logits(walk), expected, rtol=1e-4, atol=1e-4)
