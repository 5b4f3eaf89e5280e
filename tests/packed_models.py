"""Reads GPTQ, AWQ and AQLM checkpoints by the formats' definitions, with code of its own.

The dequantized weights are written as an ordinary checkpoint, so that transformers alone says what
a model computes with them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.quantizing import Stored, stored_tensors
from tests.tiny_models import write_safetensors

AWQ_COLUMNS = (0, 2, 4, 6, 1, 3, 5, 7)
"""Columns of a run of eight, from the lowest four bits of a word to the highest."""

DTYPES = {"I32": "<i4", "I16": "<i2", "I8": "i1", "F16": "<f2", "F32": "<f4"}


def array(stored: tuple[str, tuple[int, ...], bytes]) -> NDArray[Any]:
    """The values of a stored tensor; BF16 becomes float32."""
    dtype, shape, data = stored
    if dtype == "BF16":
        words = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return words.view(np.float32).reshape(shape)
    return np.frombuffer(data, DTYPES[dtype]).reshape(shape)


def bit_stream(words: NDArray[np.int32], bits: int) -> NDArray[np.int64]:
    """Codes along the last axis of int32 words, the lowest bits first."""
    octets = np.ascontiguousarray(words).view(np.uint8)
    stream = np.unpackbits(octets, axis=-1, bitorder="little")
    digits = stream.reshape(*words.shape[:-1], -1, bits).astype(np.int64)
    return (digits << np.arange(bits)).sum(-1)


def gptq_weight(parts: Mapping[str, NDArray[Any]], *, v2: bool) -> NDArray[np.float32]:
    """[out, in] of qweight, qzeros, scales and g_idx."""
    columns = len(parts["g_idx"])
    bits = 32 * parts["qweight"].shape[0] // columns
    codes = bit_stream(parts["qweight"].T, bits)  # [out, in]
    zeros = bit_stream(parts["qzeros"], bits) + (0 if v2 else 1)  # [groups, out]
    index = parts["g_idx"]
    scales = parts["scales"].astype(np.float32)[index].T
    return (codes - zeros[index].T).astype(np.float32) * scales


def awq_weight(parts: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """[out, in] of qweight, qzeros and scales in the gemm layout."""
    scales = parts["scales"].astype(np.float32)
    group = parts["qweight"].shape[0] // len(scales)
    zeros = np.repeat(_awq_nibbles(parts["qzeros"]), group, axis=0)
    return ((_awq_nibbles(parts["qweight"]) - zeros) * np.repeat(scales, group, axis=0)).T


def aqlm_weight(parts: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """[out, in] of codes, codebooks and scales."""
    codes = parts["codes"].astype(np.int64) % 2 ** (8 * parts["codes"].dtype.itemsize)
    out_groups, in_groups, count = codes.shape
    _, _, tall, wide = parts["codebooks"].shape
    groups = np.zeros((out_groups, in_groups, tall, wide), np.float32)
    for number in range(count):
        groups += parts["codebooks"][number].astype(np.float32)[codes[..., number]]
    groups *= parts["scales"].astype(np.float32)
    return groups.transpose(0, 2, 1, 3).reshape(out_groups * tall, in_groups * wide)


def _awq_nibbles(words: NDArray[np.int32]) -> NDArray[np.float32]:
    nibbles = bit_stream(words, 4).reshape(*words.shape, 8)
    natural = np.empty_like(nibbles)
    natural[..., AWQ_COLUMNS] = nibbles
    return natural.reshape(len(words), -1).astype(np.float32)


def packed_modules(stored: Stored) -> dict[str, dict[str, NDArray[Any]]]:
    """The parts of each quantized module by name."""
    modules: dict[str, dict[str, NDArray[Any]]] = {}
    for name, tensor in stored.items():
        module, _, part = name.rpartition(".")
        if part in ("qweight", "qzeros", "scales", "g_idx", "codes", "codebooks"):
            modules.setdefault(module, {})[part] = array(tensor)
    return modules


def dequantized(output: Path) -> dict[str, NDArray[np.float32]]:
    """The weights of all quantized modules, by tensor name, [out, in]."""
    config = json.loads((output / "config.json").read_text())["quantization_config"]
    found = {}
    for module, parts in packed_modules(stored_tensors(output)).items():
        if config["quant_method"] == "awq":
            weight = awq_weight(parts)
        elif config["quant_method"] == "aqlm":
            weight = aqlm_weight(parts)
        else:
            weight = gptq_weight(parts, v2=config["checkpoint_format"] == "gptq_v2")
        found[f"{module}.weight"] = weight
    return found


def write_dequantized(
    output: Path, folder: Path, weights: Mapping[str, NDArray[np.float32]] | None = None
) -> Path:
    """The output as a checkpoint without quantization, float32 where there were codes."""
    weights = dequantized(output) if weights is None else weights
    modules = {name.removesuffix(".weight") for name in weights}
    kept = {
        name: tensor
        for name, tensor in stored_tensors(output).items()
        if name.rpartition(".")[0] not in modules or name.endswith(".bias")
    }
    plain = {
        name: ("F32", value.shape, np.ascontiguousarray(value, "<f4").tobytes())
        for name, value in weights.items()
    }
    folder.mkdir()
    config = json.loads((output / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    write_safetensors(folder / "model.safetensors", kept | plain)
    return folder


def logits(folder: Path, tokens: list[list[int]]) -> NDArray[np.float32]:
    """Logits [sequences, length, vocabulary] of a checkpoint, by transformers in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    with torch.inference_mode():
        return model.eval()(torch.tensor(tokens), use_cache=False).logits.numpy()


def figures(
    source: NDArray[np.float32], result: NDArray[np.float32], tokens: list[list[int]]
) -> dict[str, float]:
    """What an evaluation says, from the logits of both models, in float64."""
    targets = np.array(tokens)[:, 1:, None]
    before, after = (_log_softmax(values[:, :-1].astype(np.float64)) for values in (source, result))
    likelihoods = [np.take_along_axis(values, targets, -1).mean() for values in (before, after)]
    return {
        "source_perplexity": float(np.exp(-likelihoods[0])),
        "perplexity": float(np.exp(-likelihoods[1])),
        "kl_divergence": float((np.exp(before) * (before - after)).sum(-1).mean()),
        "top_token_agreement": float((before.argmax(-1) == after.argmax(-1)).mean()),
        "tokens": targets.size,
    }


def _log_softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = values - values.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def block_modules(names: Iterator[str]) -> dict[int, set[str]]:
    """Modules by the number of their decoder block."""
    found: dict[int, set[str]] = {}
    for name in names:
        if match := re.search(r"\.layers\.(\d+)\.", name):
            found.setdefault(int(match[1]), set()).add(name.rpartition(".")[0])
    return found
