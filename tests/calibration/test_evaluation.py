"""Figures of the blockwise evaluation against whole models and dense logits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from tests.calibration.families import make, sequences
from tests.calibration.opened import opened

from quantd_server.calibration import evaluation
from quantd_server.calibration.activations import ActivationStore
from quantd_server.calibration.evaluation import Evaluation


@pytest.mark.parametrize("family", ["llama", "gemma2", "opt", "phi", "mixtral"])
def test_figures_are_those_of_dense_logits(family, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "HEAD_SLICE_BYTES", 4 * 32 * 50)  # 50 of 128 rows
    monkeypatch.setattr(evaluation, "LOGIT_SLICE_BYTES", 4 * 50 * 20)  # 20 tokens
    samples = [*sequences(3), *sequences(2, length=17)]
    wholes = [make(family, tmp_path / str(seed), seed=0) for seed in range(2)]
    with torch.no_grad():
        for name, parameter in wholes[1].named_parameters():
            if "layers" in name:
                parameter.add_(torch.randn_like(parameter) * 0.02)
    wholes[1].save_pretrained(tmp_path / "1")
    predicted = [
        torch.cat(
            [
                whole(tokens[None], use_cache=False).logits[0, :-1].double().log_softmax(-1)
                for tokens in samples
            ]
        )
        for whole in wholes
    ]
    targets = torch.cat([tokens[1:] for tokens in samples])
    told: list[float] = []
    with (
        opened(tmp_path / "0") as source,
        opened(tmp_path / "1") as result,
        ActivationStore(1 << 30, tmp_path) as store,
    ):
        found = Evaluation(source, result, samples, store=store, on_progress=told.append).run()
    likelihood = [part.gather(1, targets[:, None]).mean() for part in predicted]
    divergence = (predicted[0].exp() * (predicted[0] - predicted[1])).sum(-1).mean()
    agreement = (predicted[0].argmax(-1) == predicted[1].argmax(-1)).double().mean()
    assert found.tokens == len(targets)
    assert found.source_perplexity == pytest.approx(float((-likelihood[0]).exp()), rel=1e-4)
    assert found.perplexity == pytest.approx(float((-likelihood[1]).exp()), rel=1e-4)
    assert found.kl_divergence == pytest.approx(float(divergence), rel=1e-3)
    assert found.kl_divergence > 1e-5
    assert found.top_token_agreement == pytest.approx(float(agreement), abs=0.01)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_a_model_agrees_with_itself(tmp_path):
    make("llama", tmp_path / "model")
    with (
        opened(tmp_path / "model") as source,
        opened(tmp_path / "model") as result,
        ActivationStore(1 << 30, tmp_path) as store,
    ):
        found = Evaluation(source, result, sequences(), store=store).run()
    assert found.source_perplexity == found.perplexity
    assert found.kl_divergence < 1e-12
    assert found.top_token_agreement == 1.0


@pytest.mark.slow
@pytest.mark.skipif("QUANTD_TEST_MODEL" not in os.environ, reason="QUANTD_TEST_MODEL names a model")
def test_perplexity_of_a_real_model_is_that_of_transformers(tmp_path):
    from transformers import AutoModelForCausalLM

    folder = Path(os.environ["QUANTD_TEST_MODEL"])
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    samples = [tokens % whole.config.vocab_size for tokens in sequences(2, length=128)]
    with torch.inference_mode():
        losses = [whole(tokens[None], labels=tokens[None]).loss for tokens in samples]
    del whole
    with (
        opened(folder) as source,
        opened(folder) as result,
        ActivationStore(1 << 30, tmp_path) as store,
    ):
        found = Evaluation(source, result, samples, store=store).run()
    expected = torch.stack(losses).mean().exp()
    assert found.perplexity == pytest.approx(float(expected), rel=1e-4)
