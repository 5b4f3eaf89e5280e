"""Serving the result."""

from __future__ import annotations

from quantd_server.reasons.entry import Area, Reason

AREA = Area(
    title="Serving the result",
    about="What an engine cannot do with a result, or does slowly.",
    reasons={
        "ACTIVATION_ORDER_SLOW": Reason(
            meaning="With `desc_act` the input channels of a group lie apart, and the engine has "
            "to gather them for every product.",
            action="Use `act_group_aware` instead of `desc_act`.",
        ),
        "AQLM_KERNEL_MISSING": Reason(
            meaning="The engine has no kernels for groups of several output channels and makes "
            "floats of the weights for every product.",
            action="Set `out_group_size` to 1.",
        ),
        "AWQ_FORMAT_NOT_READ": Reason(
            meaning="The engine reads AWQ weights in the format GEMM only.",
            action="Convert the checkpoint to GEMM, or serve it with transformers.",
        ),
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
        "EXPERTS_NOT_READ": Reason(
            meaning="The engine does not find quantized experts.",
            action="Serve it with the engine that the remedy names, or leave the experts out.",
        ),
        "FUSED_MODULES_DIFFER": Reason(
            meaning="The engine loads several modules as one, and their settings differ.",
            action="Write rules of `dynamic` that match all modules of a group, and its name, "
            "alike.",
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
        "GPTQ_GRID_NOT_READ": Reason(
            meaning="The engine does not read GPTQ weights with this number of bits, or on an "
            "asymmetric grid.",
            action="Set `bits` to 4 or 8, and `sym` to true.",
        ),
        "GPTQ_V2_NOT_READ": Reason(
            meaning="The engine would take the zero points of format GPTQ_V2 for those of format "
            "GPTQ.",
            action="Set `sym` to true and `format` to GPTQ.",
        ),
        "GROUP_SIZE_NOT_READ": Reason(
            meaning="The engine does not read GPTQ weights with this group size.",
            action="Set `group_size` to one that the message names.",
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
        "MARLIN_NOT_USED": Reason(
            meaning="The engine computes without its fast Marlin kernels, slower.",
            action="Do what the remedy says, or accept the speed.",
        ),
        "MARLIN_SHAPE": Reason(
            meaning="Weights do not fill the tiles of the Marlin kernels, for which older "
            "versions of the engine use slower ones.",
            action="Use a new version, or leave these modules out.",
        ),
        "MODULE_SETTINGS_NOT_READ": Reason(
            meaning="The engine takes all modules for ones with the same settings.",
            action="Leave `dynamic` out, or use another engine.",
        ),
        "OUTPUT_HEAD_NOT_READ": Reason(
            meaning="The engine does not find a quantized output head.",
            action="Leave `lm_head` out, or use another engine.",
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
