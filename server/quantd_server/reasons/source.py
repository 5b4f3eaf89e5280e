"""The source checkpoint."""

from __future__ import annotations

from quantd_server.reasons.entry import Area, Reason

AREA = Area(
    title="The source checkpoint",
    about="What a checkpoint lacks, or holds in a form that is not read, as a whole.",
    reasons={
        "ADAPTER_ONLY": Reason(
            meaning="The folder holds an adapter (LoRA), not a model.",
            action="Merge the adapter into its base model, save that, and name it as the source.",
        ),
        "ARCHITECTURE_MISSING": Reason(
            meaning="The .gguf file does not name its `general.architecture`.",
            action="Convert the model again with a current llama.cpp.",
        ),
        "BLOCKS_MISSING": Reason(
            meaning="config.json announces more decoder blocks than there are tensors for.",
            action="Complete the checkpoint, or correct the number in config.json.",
        ),
        "CONFIG_FIELD_INVALID": Reason(
            meaning="A value in config.json is missing, or is not what the conversion needs.",
            action="Use the config.json that was published with the model.",
        ),
        "CONFIG_INVALID": Reason(
            meaning="A part of config.json that has to be an object is none.",
            action="Restore config.json from where the checkpoint came from.",
        ),
        "CONFIG_MISSING": Reason(
            meaning="The folder has no config.json.",
            action="Download the complete checkpoint, or name the folder that has it.",
        ),
        "FILE_NOT_FOUND": Reason(
            meaning="A file that the checkpoint needs is not in its folder.",
            action="Download the complete checkpoint, or correct `source_uri`.",
        ),
        "FILE_TOO_LARGE": Reason(
            meaning="A file beside the weights is larger than such files are.",
            action="Check that the file is what its name says.",
        ),
        "FILE_UNREADABLE": Reason(
            meaning="A file of the checkpoint cannot be opened.",
            action="Give the server's user permission to read it.",
        ),
        "FOLDER_TOO_LARGE": Reason(
            meaning="The folder has more entries than a checkpoint.",
            action="Name the folder of the checkpoint itself.",
        ),
        "FOLDER_UNREADABLE": Reason(
            meaning="The folder cannot be listed.",
            action="Give the server's user permission to read it.",
        ),
        "GGUF_IN_FOLDER": Reason(
            meaning="The folder holds .gguf files, and no Hugging Face checkpoint.",
            action="Let `source_uri` name the .gguf file itself.",
        ),
        "GGUF_SPLIT": Reason(
            meaning="The file is one part of a split GGUF model; only whole files are read.",
            action="Join the parts with llama-gguf-split --merge.",
        ),
        "INDEX_INVALID": Reason(
            meaning="model.safetensors.index.json does not map tensors to safetensors files "
            "beside it.",
            action="Download the complete checkpoint again, or export it with save_pretrained.",
        ),
        "INDEX_MISSING": Reason(
            meaning="There are shards, but no model.safetensors.index.json.",
            action="Download the complete checkpoint again, or export it with save_pretrained.",
        ),
        "JSON_INVALID": Reason(
            meaning="A JSON file of the checkpoint is not valid JSON, or is nested too deeply.",
            action="Restore the file from where the checkpoint came from.",
        ),
        "JSON_NOT_AN_OBJECT": Reason(
            meaning="A JSON file of the checkpoint holds something else than an object.",
            action="Restore the file from where the checkpoint came from.",
        ),
        "MIXTURE_OF_EXPERTS": Reason(
            meaning="The model is a mixture of experts.",
            action="Nothing has to change; look at the plan for what a method does with the "
            "experts.",
        ),
        "MODEL_TYPE_MISSING": Reason(
            meaning="config.json does not name a `model_type`.",
            action="Restore config.json from where the checkpoint came from.",
        ),
        "NON_FINITE_WEIGHTS": Reason(
            meaning="Weights are NaN or infinite.",
            action="Repair the checkpoint, or set `allow_non_finite` to have them replaced by "
            "zero where they are quantized.",
        ),
        "NOT_A_DIRECTORY": Reason(
            meaning="The source is a file, where the folder of a checkpoint is needed.",
            action="Name the folder with config.json and the safetensors files.",
        ),
        "NOT_A_REGULAR_FILE": Reason(
            meaning="A file of the checkpoint is a device, a pipe or something else that is no "
            "regular file.",
            action="Replace it by a regular file.",
        ),
        "NO_WEIGHTS": Reason(
            meaning="The checkpoint holds no tensors that are read.",
            action="Download the complete checkpoint, or name the file that has the weights.",
        ),
        "OUTPUT_HEAD_MISSING": Reason(
            meaning="The checkpoint holds no output head and does not tie it to the token "
            "embeddings, so that a loader would start with a random one.",
            action="Complete the checkpoint, or set `tie_word_embeddings` in config.json if the "
            "model is tied.",
        ),
        "PARAMETER_NOT_FLOAT": Reason(
            meaning="A parameter that running the model needs is stored as no float.",
            action="Name the original checkpoint, in float32, float16 or bfloat16.",
        ),
        "PATH_ESCAPES_CHECKPOINT": Reason(
            meaning="A file name or a link leads out of the checkpoint's folder.",
            action="Keep every file of the checkpoint inside its folder.",
        ),
        "PICKLE_ONLY": Reason(
            meaning="The weights are pickles, which can run code when they are opened.",
            action="Load the model where you trust it and save it with save_pretrained, which "
            "writes safetensors.",
        ),
        "READ_FAILED": Reason(
            meaning="Reading an open file failed.",
            action="Check the storage that holds the checkpoint, then quantize again.",
        ),
        "SHARD_MISSING": Reason(
            meaning="A file that model.safetensors.index.json names is not there.",
            action="Download the complete checkpoint again.",
        ),
        "SOURCE_ALREADY_QUANTIZED": Reason(
            meaning="The source is quantized already.",
            action="Name the original checkpoint, in float32, float16 or bfloat16.",
        ),
        "SOURCE_CHANGED": Reason(
            meaning="The source was changed after it was planned, or while it was read.",
            action="Make sure that nothing writes to it, then quantize again.",
        ),
        "SOURCE_FORMAT": Reason(
            meaning="The method quantizes a Hugging Face folder, and the source is a .gguf file.",
            action="Name the folder with config.json and the safetensors files, or choose the "
            "method gguf.",
        ),
        "SOURCE_KIND_UNKNOWN": Reason(
            meaning="The source is neither a folder with config.json nor a .gguf file.",
            action="Let `source_uri` name such a folder or such a file.",
        ),
        "SOURCE_NOT_FOUND": Reason(
            meaning="Nothing is at `source_uri`, or where another field names a file.",
            action="Correct the path, or put the checkpoint or the file there first.",
        ),
        "TENSOR_IN_TWO_FILES": Reason(
            meaning="Two files of the checkpoint hold a tensor of the same name.",
            action="Remove the file that does not belong to it, or export the model again with "
            "save_pretrained.",
        ),
        "TENSOR_MISSING": Reason(
            meaning="model.safetensors.index.json names a tensor that its file does not hold.",
            action="Download the complete checkpoint again, or export it with save_pretrained.",
        ),
        "TENSOR_NAME_TAKEN": Reason(
            meaning="A tensor of the source has the name of one that the result needs for a "
            "quantized weight.",
            action="Name the original checkpoint, which is not quantized.",
        ),
        "TOKENIZER_MALFORMED": Reason(
            meaning="The tokenizer files cannot be read.",
            action="Restore the tokenizer files from where the checkpoint came from.",
        ),
        "TOKENIZER_MISSING": Reason(
            meaning="The checkpoint lacks the tokenizer files that the method needs: "
            "tokenizer.json, or for gguf that or tokenizer.model.",
            action="Add the tokenizer files of the model, or calibrate with token ids.",
        ),
        "WEIGHTS_OUT_OF_RANGE": Reason(
            meaning="Weights are so large that the type of the result cannot hold them.",
            action="Choose another type, or skip that module; check whether the checkpoint is "
            "damaged.",
        ),
        "WEIGHT_TYPE_NOT_QUANTIZABLE": Reason(
            meaning="Weights of linear layers are not in float32, float16 or bfloat16.",
            action="Name the original checkpoint, in one of these types, or leave these modules "
            "out.",
        ),
    },
)
