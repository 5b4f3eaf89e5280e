"""Run by the Python that has gptqmodel: packs codes as gptqmodel does.

    python gptqmodel_packer.py case.npz ...

A case holds codes uint8 [out, in], scales float32 and zeros uint8 [out, groups], g_idx int32 [in],
bits, and format: "gptq", "gptq_v2" or "gemm". It is replaced by qweight, qzeros, scales and g_idx.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import torch
from gptqmodel.nn_modules.qlinear.gemm_awq import AwqGEMMLinear
from gptqmodel.nn_modules.qlinear.torch import TorchLinear
from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module


def packed(case) -> dict[str, np.ndarray]:
    codes, scales, zeros = (
        torch.from_numpy(case[name].astype(np.float32)) for name in ("codes", "scales", "zeros")
    )
    index = torch.from_numpy(case["g_idx"])
    rows, columns = codes.shape
    linear = torch.nn.Linear(columns, rows, bias=False)
    linear.weight.data = (codes - zeros[:, index]) * scales[:, index]
    storage, bits = str(case["format"]), int(case["bits"])
    options = {
        "bits": bits,
        "group_size": columns // scales.shape[1],
        "sym": False,
        "desc_act": False,
        "in_features": columns,
        "out_features": rows,
    }
    if storage == "gemm":
        # Its constructor insists on a GPU; packing needs none.
        layer = AwqGEMMLinear.__new__(AwqGEMMLinear)
        torch.nn.Module.__init__(layer)
        layer.bits, layer.in_features = bits, columns
        layer.group_size = options["group_size"]
        layer.pack(linear, scales, zeros)
        return {name: getattr(layer, name).numpy() for name in ("qweight", "qzeros", "scales")}
    layer = TorchLinear(**options)
    layer.pack_original(linear, scales, zeros, index)
    if storage == "gptq":
        convert_gptq_v2_to_v1_format_module(
            layer, SimpleNamespace(bits=bits, pack_dtype=torch.int32)
        )
    names = ("qweight", "qzeros", "scales", "g_idx")
    return {name: getattr(layer, name).numpy() for name in names}


def main() -> None:
    for path in sys.argv[1:]:
        with np.load(path) as case:
            result = packed(dict(case))
        np.savez(path, **result)


if __name__ == "__main__":
    main()
