"""What engines make of a quantized checkpoint: can they read it, and is it fast there.

One table, for results that are planned and for checkpoints that exist. Facts: transformers 5.17
and its GGUF loaders (a test compares the architectures), the bitsandbytes and GGUF loaders of vLLM
and SGLang, bitsandbytes' list of supported cards, and the CUDA backend of ggml; see also
``calibrated_serve_rules``.

GGUF types checked against vllm-gguf-plugin 0.0.5 and SGLang's ``layers/quantization/gguf.py`` at
0137a1e (neither has TQ1_0, TQ2_0 or MXFP4 among its ``DEQUANT_TYPES``), and against llama.cpp in
September 2026 (TQ1_0 and TQ2_0 are not in ``supports_op`` of ggml-cuda; its pull requests 11183 and
28769 for them were not merged).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from quantd_server.engine.specification import Engine, ServeTarget
from quantd_server.errors import Finding, FindingKind, Severity
from quantd_server.planning.artifact import Artifact
from quantd_server.planning.calibrated_serve_rules import CALIBRATED_RULES
from quantd_server.planning.load_requirements import LOAD_PATHS, capability_of
from quantd_server.planning.serve_rule import Capability, Rule, engines

FIELD = "spec.serve_targets"

ENGINE_NAMES: dict[Engine, str] = {
    "TRANSFORMERS": "transformers",
    "VLLM": "vLLM",
    "SGLANG": "SGLang",
    "LLAMA_CPP": "llama.cpp",
}

TRANSFORMERS_GGUF_ARCHITECTURES = frozenset(
    {
        "bloom",
        "deci",
        "falcon",
        "gemma2",
        "gemma3",
        "gemma4",
        "gpt-oss",
        "gpt2",
        "gpt_oss",
        "lfm2",
        "llama",
        "mamba",
        "minimax-m2",
        "nemotron",
        "phi3",
        "qwen2",
        "qwen2moe",
        "qwen3",
        "qwen35",
        "qwen3moe",
        "stablelm",
        "starcoder2",
        "t5",
        "t5encoder",
    }
)
"""`general.architecture` of the files that transformers reads."""

TRANSFORMERS_PACKED_ARCHITECTURES = frozenset({"qwen35"})
"""Those whose weights it can leave in their blocks."""

TERNARY_TYPES = frozenset({"TQ1_0", "TQ2_0"})


_BITSANDBYTES = frozenset({"bitsandbytes_8bit", "bitsandbytes_4bit"})
_EIGHT_BIT = frozenset({"bitsandbytes_8bit"})
_FOUR_BIT = frozenset({"bitsandbytes_4bit"})
_GGUF = frozenset({"gguf"})

RULES: tuple[Rule, ...] = (
    Rule(
        reason="QUANT_STORAGE_NOT_READ",
        severity=Severity.ERROR,
        engines=engines("VLLM", "SGLANG"),
        methods=_FOUR_BIT,
        applies=lambda artifact, _: artifact.quant_storage != "UINT8",
        message="{engine} reads 4-bit weights that are stored as uint8 only",
        remedy="set bnb_4bit_quant_storage to uint8",
    ),
    Rule(
        reason="TENSOR_PARALLEL_NOT_SUPPORTED",
        severity=Severity.INFO,
        engines=engines("VLLM", "SGLANG"),
        methods=_BITSANDBYTES,
        message="{engine} cannot split weights that are quantized with bitsandbytes already by "
        "tensor parallelism",
        remedy="serve it on one card, or with pipeline parallelism",
    ),
    Rule(
        reason="LOAD_FORMAT_NEEDED",
        severity=Severity.INFO,
        engines=engines("SGLANG"),
        methods=_BITSANDBYTES,
        message="{engine} has to be told the kind of the weights",
        remedy="start it with --load-format bitsandbytes",
    ),
    Rule(
        reason="INT8_TENSOR_CORES_MISSING",
        severity=Severity.WARNING,
        engines=engines("TRANSFORMERS", "VLLM", "SGLANG"),
        methods=_EIGHT_BIT,
        applies=lambda _, capability: bool(capability) and capability < (7, 5),
        message="cards below compute capability 7.5 have no int8 tensor cores: LLM.int8 is slower "
        "there than float16",
        remedy="choose bitsandbytes_4bit, or a newer card",
    ),
    Rule(
        reason="COMPUTE_DTYPE_SLOW",
        severity=Severity.WARNING,
        engines=engines("TRANSFORMERS"),
        methods=_FOUR_BIT,
        applies=lambda artifact, _: artifact.compute_dtype == "FLOAT32",
        message="with bnb_4bit_compute_dtype float32 every product is computed in float32, which "
        "is slow on GPUs",
        remedy="set bnb_4bit_compute_dtype to bfloat16, or to float16 for cards below compute "
        "capability 8.0",
    ),
    Rule(
        reason="BFLOAT16_SLOW",
        severity=Severity.WARNING,
        engines=engines("TRANSFORMERS"),
        methods=_FOUR_BIT,
        applies=lambda artifact, capability: (
            artifact.compute_dtype == "BFLOAT16" and bool(capability) and capability < (8, 0)
        ),
        message="cards below compute capability 8.0 emulate bfloat16, which is slow",
        remedy="set bnb_4bit_compute_dtype to float16",
    ),
    Rule(
        reason="GGUF_ARCHITECTURE_NOT_READ",
        severity=Severity.ERROR,
        engines=engines("TRANSFORMERS"),
        methods=_GGUF,
        applies=lambda artifact, _: (
            bool(artifact.gguf_architecture)
            and artifact.gguf_architecture not in TRANSFORMERS_GGUF_ARCHITECTURES
        ),
        message="{engine} does not read .gguf files of this architecture; it reads "
        + ", ".join(sorted(TRANSFORMERS_GGUF_ARCHITECTURES)),
        remedy="serve it with llama.cpp, or choose another method",
    ),
    Rule(
        reason="GGUF_DEQUANTIZED_AT_LOAD",
        severity=Severity.WARNING,
        engines=engines("TRANSFORMERS"),
        methods=_GGUF,
        applies=lambda artifact, _: (
            artifact.gguf_architecture not in TRANSFORMERS_PACKED_ARCHITECTURES
        ),
        message="{engine} unpacks a .gguf file into floats when it loads it, so that nothing is "
        "saved in memory or time",
        remedy="serve it with llama.cpp, or choose bitsandbytes for transformers",
    ),
    Rule(
        reason="ENGINE_PLUGIN_NEEDED",
        severity=Severity.WARNING,
        engines=engines("VLLM"),
        methods=_GGUF,
        message="{engine} reads .gguf files with a plugin only, since its version 0.24",
        remedy="pip install vllm-gguf-plugin where it is served",
    ),
    Rule(
        reason="LOAD_FORMAT_NEEDED",
        severity=Severity.INFO,
        engines=engines("SGLANG"),
        methods=_GGUF,
        message="{engine} has to be told the kind of the weights",
        remedy="start it with --load-format gguf",
    ),
    Rule(
        reason="GGML_TYPE_NOT_READ",
        severity=Severity.ERROR,
        engines=engines("VLLM", "SGLANG"),
        methods=_GGUF,
        applies=lambda artifact, _: bool(artifact.tensor_types & TERNARY_TYPES),
        message="{engine} has no kernels for the ternary types TQ1_0 and TQ2_0",
        remedy="choose another file type, or serve it with llama.cpp",
    ),
    Rule(
        reason="GGML_TYPE_NOT_READ",
        severity=Severity.ERROR,
        engines=engines("VLLM", "SGLANG"),
        methods=_GGUF,
        applies=lambda artifact, _: "MXFP4" in artifact.tensor_types,
        message="{engine} has no kernels for MXFP4 in .gguf files",
        remedy="choose another file type, or serve it with llama.cpp",
    ),
    Rule(
        reason="GGML_TYPE_ON_CPU",
        severity=Severity.WARNING,
        engines=engines("LLAMA_CPP"),
        methods=_GGUF,
        applies=lambda artifact, capability: (
            bool(capability) and bool(artifact.tensor_types & TERNARY_TYPES)
        ),
        message="{engine} has no CUDA kernels for TQ1_0 and TQ2_0 and computes with them on the "
        "processor",
        remedy="choose another file type for a card",
    ),
    *CALIBRATED_RULES,
)


def target_findings(artifact: Artifact, targets: Sequence[ServeTarget]) -> Iterator[Finding]:
    """What stands against serving ``artifact`` where the caller means to."""
    for number, target in enumerate(targets):
        capability = capability_of(target.compute_capability) if target.compute_capability else ()
        for finding in engine_findings(artifact, target.engine, capability):
            yield msgspec.structs.replace(finding, field=f"{FIELD}[{number}]")


def engine_findings(
    artifact: Artifact, engine: Engine, capability: Capability = ()
) -> Iterator[Finding]:
    """What is to be said about ``artifact`` in ``engine`` on a card of ``capability``."""
    name = ENGINE_NAMES[engine]
    path = next((path for path in LOAD_PATHS[artifact.method] if path.engine == engine), None)
    if path is None or path.dropped:
        yield _finding(
            Severity.ERROR,
            "ENGINE_CANNOT_READ",
            path.dropped if path else f"{name} does not read what {artifact.method} writes",
            f"choose {' or '.join(_readable(engine))} for {name}, or leave it out",
            kind="invalid",
        )
        return
    minimum = path.min_compute_capability
    if capability and minimum and capability < minimum:
        yield _finding(
            Severity.ERROR,
            "COMPUTE_CAPABILITY_TOO_LOW",
            f"{name} needs compute capability {_dotted(minimum)} or newer for {artifact.method}, "
            f"not {_dotted(capability)}",
            "use a newer card, or another engine",
        )
    for rule in RULES:
        if (
            engine in rule.engines
            and artifact.method in rule.methods
            and rule.applies(artifact, capability)
        ):
            yield _finding(
                rule.severity, rule.reason, rule.message.format(engine=name), rule.remedy
            )


def _readable(engine: Engine) -> list[str]:
    """The methods whose results ``engine`` reads."""
    return [
        method
        for method, paths in LOAD_PATHS.items()
        if any(path.engine == engine and not path.dropped for path in paths)
    ]


def _dotted(numbers: Iterable[int]) -> str:
    return ".".join(map(str, numbers))


def _finding(
    severity: Severity,
    reason: str,
    message: str,
    remedy: str,
    kind: FindingKind = "precondition",
) -> Finding:
    return Finding(
        severity=severity, field="", reason=reason, message=message, remedy=remedy, kind=kind
    )
