"""Serving the result."""

from __future__ import annotations

from quantd_server.reasons.entry import Area, Reason

AREA = Area(
    title="Serving the result",
    about="What an engine cannot do with a result, or does slowly.",
    reasons={
        "BFLOAT16_SLOW": Reason(
            meaning="Cards below compute capability 8.0 have no units for bfloat16.",
            action="Load or quantize with float16 as the compute type.",
        ),
        "COMPUTE_DTYPE_SLOW": Reason(
            meaning="Every product is computed in float32, which is slow on GPUs.",
            action="Set `bnb_4bit_compute_dtype` to bfloat16, or to float16 for cards below "
            "compute capability 8.0.",
        ),
        "ENGINE_CANNOT_READ": Reason(
            meaning="The engine does not read results of this method, or checkpoints of this kind.",
            action="Choose a method that the engine reads, or another engine.",
        ),
        "ENGINE_DROPPED_METHOD": Reason(
            meaning="No current version of the engine loads results of this method.",
            action="Choose another engine, or another method.",
        ),
        "ENGINE_PLUGIN_NEEDED": Reason(
            meaning="The engine reads such files with a plugin only.",
            action="Install the plugin where the result is served.",
        ),
        "GGML_TYPE_NOT_READ": Reason(
            meaning="The engine has no kernels for a ggml type in the result.",
            action="Choose another file type, or serve it with llama.cpp.",
        ),
        "GGML_TYPE_ON_CPU": Reason(
            meaning="The engine computes with a ggml type in the result on the processor only.",
            action="Choose another file type for a card.",
        ),
        "GGUF_ARCHITECTURE_NOT_READ": Reason(
            meaning="The engine does not read .gguf files of this architecture.",
            action="Serve it with llama.cpp, or choose another method.",
        ),
        "GGUF_DEQUANTIZED_AT_LOAD": Reason(
            meaning="The engine unpacks the .gguf file into floats, so that neither memory nor "
            "time is saved.",
            action="Serve it with llama.cpp, or choose a method that the engine keeps packed.",
        ),
        "INT8_TENSOR_CORES_MISSING": Reason(
            meaning="Cards below compute capability 7.5 have no int8 tensor cores, so that "
            "LLM.int8 is slower than float16.",
            action="Choose `bitsandbytes_4bit`, or a newer card.",
        ),
        "LOAD_FORMAT_NEEDED": Reason(
            meaning="The engine has to be told the kind of the weights.",
            action="Start it with the option in the remedy.",
        ),
        "QUANT_STORAGE_NOT_READ": Reason(
            meaning="The engine reads 4-bit weights that are stored as uint8 only.",
            action="Set `bnb_4bit_quant_storage` to uint8.",
        ),
        "TENSOR_PARALLEL_NOT_SUPPORTED": Reason(
            meaning="The engine cannot split weights that are quantized already by tensor "
            "parallelism.",
            action="Serve it on one card, or with pipeline parallelism.",
        ),
    },
)
