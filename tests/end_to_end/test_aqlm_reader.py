"""Transformers with the package aqlm reads what is written: its logits are those of our reading.

With one thread: the package's kernel for CPUs adds up without locks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests import calibrated_jobs as jobs
from tests import packed_models

pytest.importorskip("aqlm")
numba = pytest.importorskip("numba")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def one_thread():
    before, numba_before = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    numba.set_num_threads(numba_before)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return jobs.source(
        "llama", tmp_path_factory.mktemp("sources") / "llama", hidden_size=128, head_dim=32
    )


@pytest.mark.parametrize("epochs", [0, 2])
@pytest.mark.parametrize(
    ("codebooks", "bits", "in_group", "out_group"),
    [(2, 4, 8, 1), (1, 8, 8, 1), (2, 8, 8, 1), (3, 5, 4, 1), (1, 9, 8, 1), (2, 5, 4, 2)],
)
def test_logits(tmp_path, source, codebooks, bits, in_group, out_group, epochs) -> None:
    from transformers import AutoModelForCausalLM

    config = {
        "num_codebooks": codebooks,
        "nbits_per_codebook": bits,
        "in_group_size": in_group,
        "out_group_size": out_group,
        "relative_mse_tolerance": 0.2,
        "finetune_max_epochs": epochs,
        "finetune_lr": 1e-3,
    }
    job = jobs.run(source, tmp_path / "output", "aqlm", config, evaluation=None)
    assert len(job.linears) == 14
    model = AutoModelForCausalLM.from_pretrained(job.output, dtype=torch.float32)
    readers = {type(module).__module__ for module in model.modules()}
    assert "aqlm.inference" in readers
    with torch.inference_mode():
        found = model.eval()(torch.tensor(jobs.EVALUATED), use_cache=False).logits.numpy()
    plain = packed_models.write_dequantized(job.output, tmp_path / "plain")
    expected = packed_models.logits(plain, jobs.EVALUATED)
    original = packed_models.logits(source, jobs.EVALUATED)
    scale = np.abs(expected).max()
    assert np.abs(found - expected).max() < 1e-4 * scale
    assert np.abs(original - expected).max() > 1e-2 * scale
