"""GGUF conversion."""

from __future__ import annotations

from quantd_server.reasons.entry import Area, Reason

AREA = Area(
    title="GGUF conversion",
    about="What llama.cpp cannot do with a model, or does otherwise.",
    reasons={
        "GGUF_ARCHITECTURE_UNSUPPORTED": Reason(
            meaning="The architecture cannot be converted to GGUF here.",
            action="Convert the model to an unquantized .gguf file with llama.cpp and quantize "
            "that file.",
        ),
        "GGUF_FEATURE_UNSUPPORTED": Reason(
            meaning="The model uses something that llama.cpp, or this conversion, does not have.",
            action="Choose another method.",
        ),
        "GGUF_IMATRIX_REQUIRED": Reason(
            meaning="Tensors get a type that is not usable without an importance matrix, and have "
            "no values in one.",
            action="Give an importance matrix that was made from this very model, or choose a "
            "larger file type.",
        ),
        "GGUF_OVERRIDES_IGNORED": Reason(
            meaning="Overrides of tensor types have no effect in a file type that is not "
            "quantized.",
            action="Choose a quantized file type, or leave the overrides out.",
        ),
        "GGUF_ROWS_DO_NOT_FIT": Reason(
            meaning="Tensors have rows that are no multiple of 32 and stay F16.",
            action="Nothing has to change; the file is larger than usual.",
        ),
        "GGUF_SLIDING_WINDOW_IGNORED": Reason(
            meaning="The model attends to a window of tokens, which llama.cpp ignores in its "
            "architecture.",
            action="Run the result with a context of at most that window.",
        ),
        "GGUF_SOURCE_DTYPE_UNSUPPORTED": Reason(
            meaning="Weights of the source are of a type that cannot be converted.",
            action="Use the unquantized checkpoint of this model.",
        ),
        "GGUF_TENSOR_MISSING": Reason(
            meaning="Tensors that llama.cpp needs for this architecture are not in the checkpoint.",
            action="Check that all shards are there and that config.json belongs to these weights.",
        ),
        "GGUF_TENSOR_SHAPE_MISMATCH": Reason(
            meaning="A tensor has another shape than config.json says.",
            action="Check that config.json belongs to these weights.",
        ),
        "GGUF_TENSOR_UNMAPPED": Reason(
            meaning="Tensors have no place in llama.cpp's version of the architecture.",
            action="Choose another method, or remove these tensors if the model does not use them.",
        ),
        "GGUF_TYPE_FALLBACK": Reason(
            meaning="Tensors get another type than the file type gives them, because its blocks "
            "do not divide their rows.",
            action="Nothing has to change; a type with blocks of 32 fits all rows that are "
            "multiples of 32.",
        ),
        "IMATRIX_INCOMPLETE": Reason(
            meaning="The importance matrix has no values for some tensors, which are quantized "
            "without weights.",
            action="Make the matrix from this very model with llama-imatrix.",
        ),
        "IMATRIX_INVALID": Reason(
            meaning="The file is no importance matrix, or is damaged.",
            action="Make it again with llama-imatrix.",
        ),
        "IMATRIX_SIZE_MISMATCH": Reason(
            meaning="The importance matrix has another number of values for a tensor than that "
            "has columns.",
            action="Make the matrix from this very model with llama-imatrix.",
        ),
        "TOKENIZER_BYTE_TOKENS_MISSING": Reason(
            meaning="Some of the 256 byte tokens are missing, without which llama.cpp aborts.",
            action="Choose another method.",
        ),
        "TOKENIZER_DUPLICATE_TOKENS": Reason(
            meaning="Token texts appear twice, on which llama.cpp aborts.",
            action="Restore the tokenizer files from where the checkpoint came from.",
        ),
        "TOKENIZER_MERGES_APPROXIMATED": Reason(
            meaning="The merges of tokenizer.json cannot all be ordered by scores, as llama.cpp "
            "needs; rare words may get other tokens.",
            action="Add the model's tokenizer.model, or compare tokenizations before use.",
        ),
        "TOKENIZER_MODEL_UNSUPPORTED": Reason(
            meaning="llama.cpp has no tokenizer of this kind.",
            action="Add the model's tokenizer.model if it has one; else choose another method.",
        ),
        "TOKENIZER_NORMALIZATION_IGNORED": Reason(
            meaning="The tokenizer normalizes text, and llama.cpp does not.",
            action="Normalize prompts before they reach llama.cpp.",
        ),
        "TOKENIZER_PRETOKENIZER_UNKNOWN": Reason(
            meaning="llama.cpp has no pre-tokenizer that is known to split text in this way.",
            action="Convert the model to an unquantized .gguf file with llama.cpp and quantize "
            "that file.",
        ),
        "TOKENIZER_SPACE_PREFIX_DIFFERS": Reason(
            meaning="llama.cpp puts a space before text that follows a special token, and this "
            "tokenizer does not.",
            action="Nothing has to change; compare tokenizations if a prompt template is "
            "sensitive to it.",
        ),
        "TOKENIZER_SPECIAL_TOKEN_MISSING": Reason(
            meaning="The tokenizer adds a token to each text, but names none.",
            action="Name the token in tokenizer_config.json.",
        ),
        "TOKENIZER_STRIPPING_IGNORED": Reason(
            meaning="Special tokens swallow the spaces beside them, which llama.cpp keeps.",
            action="Write prompts without spaces beside special tokens.",
        ),
        "TOKENIZER_TEMPLATE_UNKNOWN": Reason(
            meaning="The tokenizer adds a token to each text that llama.cpp will not add.",
            action="Write the token into the prompt where the model needs it.",
        ),
        "TOKENIZER_TOKENS_WITHOUT_ROW": Reason(
            meaning="Tokens have ids beyond the rows of the token embedding and are left out.",
            action="Check that the tokenizer belongs to this model.",
        ),
    },
)
