"""Quantization methods."""

from __future__ import annotations

from quantd_server.reasons.entry import Area, Reason

AREA = Area(
    title="Quantization methods",
    about="What stands against a method, or is worth knowing about its result, for this model.",
    reasons={
        "AQLM_BITS_HIGH": Reason(
            meaning="Codes and codebooks take as many bits a weight as 8-bit methods do.",
            action="Use smaller codebooks, leave small weights out, or choose an 8-bit method.",
        ),
        "AQLM_BITS_TOO_MANY": Reason(
            meaning="Codes and codebooks take no less than the weights in float16.",
            action="Use smaller codebooks, or leave these weights out.",
        ),
        "AQLM_TAKES_LONG": Reason(
            meaning="The codes of a model of this size are searched for hours, or for days.",
            action="Choose gptq or awq, lower `max_epochs`, or raise `relative_mse_tolerance`.",
        ),
        "AQLM_TOO_FEW_GROUPS": Reason(
            meaning="A weight has fewer groups than a codebook has vectors, which could not be "
            "learned.",
            action="Lower `nbits_per_codebook`, or leave these weights out.",
        ),
        "ARCHITECTURE_NOT_RECOGNIZED": Reason(
            meaning="The linear layers of this `model_type` are not known here; they are told "
            "from the names and shapes of the tensors.",
            action="Look at the tensors in the plan before you quantize.",
        ),
        "ARCHITECTURE_NOT_SUPPORTED": Reason(
            meaning="The model cannot be run block by block, which calibration needs.",
            action="Choose a method without calibration, such as gguf or bitsandbytes.",
        ),
        "ARCHITECTURE_WITHOUT_SCALE_MAPPING": Reason(
            meaning="It is not known for this `model_type` which weights take the inverse of "
            "input scales.",
            action="Choose gptq without `awq_scaling`, or another method.",
        ),
        "AWQ_FORMAT_NOT_WRITTEN": Reason(
            meaning="The AWQ format is understood, but not written.",
            action="Leave `format` out, or set it to GEMM.",
        ),
        "BLOCKS_CROSS_ROWS": Reason(
            meaning="The rows of some weights are no multiple of `blocksize`, so that blocks "
            "cross rows, which bitsandbytes 0.50 reads wrongly on a CPU.",
            action="Choose a `blocksize` that divides the rows, or load the result on a GPU.",
        ),
        "EXPERTS_NOT_QUANTIZED": Reason(
            meaning="The weights of the experts stay in their own type: transformers holds them "
            "outside of linear layers, which is all that bitsandbytes replaces.",
            action="Choose gguf for a mixture-of-experts model.",
        ),
        "GROUP_SIZE_DOES_NOT_DIVIDE": Reason(
            meaning="The size of a group does not divide a dimension of some weights.",
            action="Choose the size that the remedy names, or leave these weights out.",
        ),
        "NOTHING_TO_QUANTIZE": Reason(
            meaning="No tensor would be quantized.",
            action="Skip fewer modules, or check that the source is a language model.",
        ),
        "OUTPUT_HEAD_TIED": Reason(
            meaning="The output head is to be quantized, but shares the weight of the token "
            "embeddings, which stays in its own type.",
            action="Leave `lm_head` out.",
        ),
        "QUANT_STORAGE_UNFIT": Reason(
            meaning="The 4-bit codes of a weight do not fill whole items of "
            "`bnb_4bit_quant_storage`.",
            action="Set `bnb_4bit_quant_storage` to uint8.",
        ),
        "SHAPE_NOT_PACKABLE": Reason(
            meaning="The dimensions of a weight are no multiples of what its format packs into "
            "one word.",
            action="Leave these weights out, or choose gguf or bitsandbytes.",
        ),
        "WEIGHTS_SATURATED": Reason(
            meaning="Weights of a group, or of a row, are too large for a float16 scale, and the "
            "largest were cut off.",
            action="Leave this module out, or choose bitsandbytes or gguf.",
        ),
    },
)
