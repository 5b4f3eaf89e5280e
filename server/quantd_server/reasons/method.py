"""Quantization methods."""

from __future__ import annotations

from quantd_server.reasons.entry import Area, Reason

AREA = Area(
    title="Quantization methods",
    about="What stands against a method, or is worth knowing about its result, for this model.",
    reasons={
        "ARCHITECTURE_NOT_RECOGNIZED": Reason(
            meaning="The linear layers of this `model_type` are not known here; they are told "
            "from the names and shapes of the tensors.",
            action="Look at the tensors in the plan before you quantize.",
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
        "NOTHING_TO_QUANTIZE": Reason(
            meaning="No tensor would be quantized.",
            action="Skip fewer modules, or check that the source is a language model.",
        ),
        "QUANT_STORAGE_UNFIT": Reason(
            meaning="The 4-bit codes of a weight do not fill whole items of "
            "`bnb_4bit_quant_storage`.",
            action="Set `bnb_4bit_quant_storage` to uint8.",
        ),
    },
)
