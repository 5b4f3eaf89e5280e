"""A block that is tuned, against the same block in a whole model of transformers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tests.calibration.families import FAMILIES, make, sequences
from tests.calibration.test_walk import apply, coarse, final_states, logits, walking
from torch import nn

from quantd_server.calibration.block_step import BlockStep
from quantd_server.calibration.experts import EXPERT_NAMES
from quantd_server.calibration.tuning import TunableBlock
from quantd_server.calibration.walk import BlockWalk


def solved(walk: BlockWalk) -> Iterator[tuple[BlockStep, TunableBlock, dict[str, torch.Tensor]]]:
    """The blocks with coarse weights, and all that they are to compute with: other norms, too."""
    for block in walk:
        values = {}
        for stage in block.stages():
            for group in stage.groups:
                group.statistics()  # as a method does, for the count of steps
                for name in group.names:
                    values[f"{name}.weight"] = coarse(stage.weight(name))
                    stage.replace(name, values[f"{name}.weight"])
        tunable = block.tunable()
        assert tunable is not None
        for name in tunable.parameters:
            if name not in values and ".experts." not in name:
                values[name] = walk._model.parameters.read(name).float() * 1.05
        yield block, tunable, values


def targets(folder, family: str) -> set[str] | None:
    """All linears but those of experts."""
    if family not in EXPERT_NAMES:
        return None
    with walking(folder) as walk:
        model = walk._model
        names = {name for index in range(len(model)) for name in model.linears(index)}
        return {name for name in names if ".experts." not in name}


def change(whole: nn.Module, walk: BlockWalk, index: int, family: str, values) -> nn.Module:
    """Gives a block of a whole model the values; the block."""
    weights = {f"{name}.weight" for name in walk._model.linears(index)}
    apply(
        whole,
        family,
        {n.removesuffix(".weight"): value for n, value in values.items() if n in weights},
    )
    block = whole.get_submodule(f"{walk._model.block_prefix}.{index}")
    with torch.no_grad():
        for name, inner in walk._model.block_parameters(index).items():
            if name in values and name not in weights:
                block.get_parameter(inner).copy_(values[name])
    return block


def outputs(whole: nn.Module, block: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    seen = []
    handle = block.register_forward_hook(lambda _, __, returned: seen.append(returned))
    whole(batch, use_cache=False)
    handle.remove()
    return seen[0][0] if isinstance(seen[0], tuple) else seen[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_and_what_the_walk_goes_on_with(family, tmp_path):
    whole = make(family, tmp_path / "model", num_hidden_layers=2)
    whole.set_experts_implementation("eager") if family in EXPERT_NAMES else None
    wanted = targets(tmp_path / "model", family)
    batch = torch.stack(sequences())
    with walking(tmp_path / "model", tuning_epochs=1, targets=wanted) as walk:
        for step, tunable, values in solved(walk):
            block = whole.get_submodule(f"{walk._model.block_prefix}.{step.index}")
            original = outputs(whole, block, batch).detach()
            change(whole, walk, step.index, family, values)
            whole.requires_grad_(False)
            block.requires_grad_(True)
            with torch.enable_grad():
                found = outputs(whole, block, batch)
                loss = (found - original).square().sum()
                loss.backward()
            pieces = [piece for b in tunable.batches(3, torch.Generator()) for piece in b]
            assert sum(piece.end - piece.begin for piece in pieces) == len(batch)
            gradients = tunable.gradients(pieces, values)
            linears = walk._model.linears(step.index)
            # Of biases of keys it is 0 but for rounding.
            norms = [value for name, value in gradients.items() if "norm" in name or "ln" in name]
            scale = min(float(value.abs().max()) for value in norms)
            for name, inner in walk._model.block_parameters(step.index).items():
                if name not in values:
                    continue
                linear = linears.get(name.removesuffix(".weight"))
                expected = block.get_parameter(inner).grad
                if linear is not None and linear.transposed:
                    expected = expected.T
                torch.testing.assert_close(gradients[name], expected, rtol=1e-3, atol=1e-4 * scale)
            error = tunable.error(values)
            assert error.squared_error == pytest.approx(loss.item(), rel=1e-4)
            last, errors = tunable.finish(values)
            assert last.squared_error == pytest.approx(loss.item(), rel=1e-4)
            assert last.energy == pytest.approx(error.energy, rel=1e-5)
            assert errors.keys() == values.keys() & {f"{name}.weight" for name in linears}
            step.finish()
            block.zero_grad()
        with torch.no_grad():
            expected = whole(batch, use_cache=False).logits
        torch.testing.assert_close(logits(walk), expected, rtol=1e-4, atol=1e-4)
        assert len(final_states(walk)) == len(batch)
        assert all(kind == "states" for kind, *_ in walk._store._memory)


def test_errors_of_linears_are_those_of_what_they_see(tmp_path):
    whole = make("qwen2", tmp_path / "model", num_hidden_layers=1)
    original = make("qwen2", tmp_path / "same", num_hidden_layers=1)
    batch = torch.stack(sequences())
    with walking(tmp_path / "model", tuning_epochs=1) as walk:
        for step, tunable, values in solved(walk):
            _, errors = tunable.finish(values)
            change(whole, walk, step.index, "qwen2", values)
            for name, linear in walk._model.linears(0).items():
                seen = []
                module = whole.get_submodule(name)
                handle = module.register_forward_pre_hook(lambda _, a, seen=seen: seen.append(a[0]))
                whole(batch, use_cache=False)
                handle.remove()
                weight = original.get_submodule(name).weight
                lost = seen[0] @ (weight - module.weight).T
                found = errors[f"{name}.weight"]
                assert found.squared_error == pytest.approx(float(lost.square().sum()), rel=1e-4)
                energy = (seen[0] @ weight.T).square().sum()
                assert found.energy == pytest.approx(float(energy), rel=1e-4)
                assert linear.module.weight.shape == weight.shape


def test_progress_grows_with_every_pass_of_a_micro_batch(tmp_path):
    make("llama", tmp_path / "model", num_hidden_layers=1)
    told: list[float] = []
    with walking(tmp_path / "model", tuning_epochs=1, on_progress=told.append) as walk:
        for step, tunable, values in solved(walk):
            before, batches = len(told), list(tunable.batches(2, torch.Generator()))
            tunable.error(values)
            assert len(told) - before == len(walk.micro_batches)
            for batch in batches:
                before = len(told)
                tunable.gradients(batch, values)
                assert len(told) - before == len(batch)
            tunable.error(values)
            before = len(told)
            tunable.finish(values)
            assert len(told) - before == len(walk.micro_batches)
            assert 0.9 < told[-1] <= 1
            step.finish()
    assert told == sorted(told) and told[-1] == 1
    assert len(set(told)) >= len(told) - 1  # the end may be told twice


def test_without_tuning_there_is_nothing_to_tune(tmp_path):
    make("llama", tmp_path / "model")
    with walking(tmp_path / "model") as walk:
        for block in walk:
            assert block.tunable() is None


def test_a_block_that_was_not_tuned_is_not_gone_on_from(tmp_path):
    make("llama", tmp_path / "model")
    with walking(tmp_path / "model", tuning_epochs=1) as walk:
        block = next(iter(walk))
        with pytest.raises(RuntimeError):
            block.finish()


@pytest.mark.parametrize("budget", [0, 1 << 30])
@pytest.mark.parametrize("size", [1, 4, 100])
def test_batches(tmp_path, budget, size):
    make("llama", tmp_path / "model", num_hidden_layers=1)
    found = {}
    with walking(tmp_path / "model", tuning_epochs=1, budget=budget) as walk:
        for _, tunable, values in solved(walk):
            generator = torch.Generator().manual_seed(0)
            batches = list(tunable.batches(size, generator))
            counts = [sum(piece.end - piece.begin for piece in batch) for batch in batches]
            assert set(counts[:-1]) <= {size} and 0 < counts[-1] <= size
            rows = {
                (piece.micro_batch, row)
                for batch in batches
                for piece in batch
                for row in range(piece.begin, piece.end)
            }
            assert len(rows) == sum(counts) == len(sequences())
            for batch in batches:
                for name, value in tunable.gradients(batch, values).items():
                    found[name] = found.get(name, 0) + value
            whole = tunable.gradients(
                [piece for batch in tunable.batches(10**6, generator) for piece in batch], values
            )
            for name, value in whole.items():
                scale = float(value.abs().max())
                torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5 * scale)
            tunable.finish(values)
