"""Quantization methods that exist and that quantd does not serve.

By name, with the packages that transformers wants for loading such a checkpoint (its quantizers'
``validate_environment``). transformers: ``AUTO_QUANTIZATION_CONFIG_MAPPING``, both checked against
5.17. vLLM: the registry in ``vllm/model_executor/layers/quantization``, with names that older
versions had (checked against 0034007). Distributions are those of the Python Package Index; there,
"qutlass" is a placeholder of version 0.0.0, and the real one comes from its repository.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class KnownMethod:
    """A method of transformers, of vLLM, or of both."""

    name: str
    reader: str
    """Who loads it, to follow "known to"."""
    packages: tuple[str, ...] = ()


_BOTH = "transformers and vLLM"
_TRANSFORMERS = "transformers"
_VLLM = "vLLM"
_OLD_VLLM = "older versions of vLLM"


def _transformers(reader: str, **packages: tuple[str, ...]) -> Iterator[KnownMethod]:
    """Methods by name, in which two underscores stand for a hyphen."""
    for name, wanted in packages.items():
        yield KnownMethod(name.replace("__", "-"), reader, ("torch", "transformers", *wanted))


def _vllm(reader: str, *names: str) -> Iterator[KnownMethod]:
    for name in names:
        yield KnownMethod(name, reader, ("vllm",))


KNOWN_METHODS: dict[str, KnownMethod] = {
    method.name: method
    for method in (
        *_transformers(
            _BOTH,
            compressed__tensors=("compressed-tensors",),
            fbgemm_fp8=("accelerate", "fbgemm-gpu"),
            fp8=("accelerate",),
            fp_quant=("fp-quant", "qutlass"),
            mxfp4=("accelerate", "kernels"),
            mxfp8=("kernels",),
            quark=("amd-quark",),
            torchao=("torchao",),
        ),
        *_transformers(
            _TRANSFORMERS,
            auto__round=("auto-round",),
            bitnet=("accelerate",),
            eetq=("accelerate", "kernels"),
            fouroversix=("fouroversix",),
            gemma=(),
            higgs=("accelerate", "flute-kernel", "fast-hadamard-transform"),
            hqq=("hqq",),
            metal=("kernels",),
            nvfp4=("kernels",),
            quanto=("accelerate", "optimum-quanto"),
            sinq=("sinq",),
            spqr=("accelerate", "spqr-quant"),
            vptq=("accelerate", "vptq"),
        ),
        *_vllm(
            _VLLM,
            *("auto_awq", "auto_gptq", "awq_marlin", "gptq_marlin", "moe_wna16", "inc"),
            *("modelopt", "modelopt_fp4", "modelopt_mxfp8", "modelopt_mixed"),
            *("experts_int8", "gpt_oss_mxfp4", "deepseek_v4_fp8", "online", "humming"),
            *("fp8_per_tensor", "fp8_per_block", "fp8_per_channel"),
            *("int8_per_channel_weight_only", "nvfp4_per_token"),
        ),
        *_vllm(
            _OLD_VLLM,
            *(
                "bitblas",
                "cpu_awq",
                "deepgemm_fp8",
                "deepspeedfp",
                "gptq_bitblas",
                "gptq_marlin_24",
            ),
            *("ipex", "marlin", "neuron_quant", "petit_nvfp4", "ptpc_fp8", "qqq", "tpu_int8"),
        ),
    )
}
