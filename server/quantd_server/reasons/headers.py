"""Headers of weight files."""

from __future__ import annotations

from quantd_server.reasons.entry import Area, Reason

AREA = Area(
    title="Headers of weight files",
    about="What is wrong with one safetensors or GGUF file. Each of these means that the file is "
    "damaged, made by a faulty program, or made to do harm.",
    reasons={
        "ALIGNMENT_INVALID": Reason(
            meaning="`general.alignment` is no power of two in the allowed range.",
            action="Download the file again, or convert the model again with a current llama.cpp.",
        ),
        "ARRAY_NESTED": Reason(
            meaning="A metadata value is an array of arrays.",
            action="Convert the model again with a current llama.cpp.",
        ),
        "ARRAY_TOO_LONG": Reason(
            meaning="A metadata array announces more elements than the file can hold.",
            action="Download the file again; it is cut short or damaged.",
        ),
        "BOOL_INVALID": Reason(
            meaning="A truth value in the metadata is neither 0 nor 1.",
            action="Download the file again, or convert the model again with a current llama.cpp.",
        ),
        "DATA_HOLE": Reason(
            meaning="Bytes between the tensors belong to none of them.",
            action="Download the file again, or export it again.",
        ),
        "DATA_TRAILING": Reason(
            meaning="Bytes behind the last tensor belong to none.",
            action="Download the file again, or export it again.",
        ),
        "DATA_TRUNCATED": Reason(
            meaning="The file ends before its last tensor does.",
            action="Download the file again; it is cut short.",
        ),
        "DTYPE_UNKNOWN": Reason(
            meaning="A tensor has a type that the safetensors format does not define.",
            action="Use a newer server if the type is new; else export the file again.",
        ),
        "DUPLICATE_KEY": Reason(
            meaning="A key of the header is there twice.",
            action="Download the file again, or export it again.",
        ),
        "DUPLICATE_TENSOR": Reason(
            meaning="Two tensors of a .gguf file have the same name.",
            action="Download the file again, or convert the model again with a current llama.cpp.",
        ),
        "ENTRY_INVALID": Reason(
            meaning="A tensor is not described by exactly a name, a dtype, a shape and "
            "data_offsets.",
            action="Export the file again with the safetensors library.",
        ),
        "FILE_EMPTY": Reason(
            meaning="The file is empty.",
            action="Download the file again.",
        ),
        "GGUF_BIG_ENDIAN": Reason(
            meaning="The .gguf file is big-endian; only little-endian files are read.",
            action="Convert it to little-endian with llama.cpp's gguf_convert_endian.",
        ),
        "GGUF_VERSION_UNSUPPORTED": Reason(
            meaning="The .gguf file has a version of the format other than 2 and 3.",
            action="Convert the model again with a current llama.cpp.",
        ),
        "HEADER_INVALID_JSON": Reason(
            meaning="The header is not valid JSON.",
            action="Download the file again, or export it again with the safetensors library.",
        ),
        "HEADER_NOT_AN_OBJECT": Reason(
            meaning="The header is valid JSON, but no object.",
            action="Export the file again with the safetensors library.",
        ),
        "HEADER_NOT_UTF8": Reason(
            meaning="The header is not UTF-8.",
            action="Download the file again, or export it again with the safetensors library.",
        ),
        "HEADER_TOO_COMPLEX": Reason(
            meaning="The header has more JSON values than the header of any model.",
            action="Check that the file is what its name says.",
        ),
        "HEADER_TOO_LARGE": Reason(
            meaning="The header is longer than the header of any model.",
            action="Check that the file is what its name says.",
        ),
        "HEADER_TRUNCATED": Reason(
            meaning="The file ends inside its header.",
            action="Download the file again; it is cut short.",
        ),
        "METADATA_INVALID": Reason(
            meaning="`__metadata__` is not a map of text to text.",
            action="Export the file again with the safetensors library.",
        ),
        "NOT_GGUF": Reason(
            meaning="The file does not begin with the GGUF magic.",
            action="Name a .gguf file; convert the older GGML formats with llama.cpp.",
        ),
        "OFFSETS_INVALID": Reason(
            meaning="`data_offsets` of a tensor are not two integers that run forwards.",
            action="Export the file again with the safetensors library.",
        ),
        "OFFSETS_OVERLAP": Reason(
            meaning="Two tensors claim the same bytes of the file.",
            action="Download the file again, or export it again.",
        ),
        "OFFSET_MISALIGNED": Reason(
            meaning="A tensor does not begin at a multiple of the file's alignment.",
            action="Convert the model again with a current llama.cpp.",
        ),
        "SHAPE_INVALID": Reason(
            meaning="A tensor has a shape that is not possible.",
            action="Download the file again, or export it again.",
        ),
        "SIZE_MISMATCH": Reason(
            meaning="A tensor has another number of bytes than its dtype and shape take.",
            action="Download the file again, or export it again.",
        ),
        "STRING_NOT_UTF8": Reason(
            meaning="A text in the GGUF header is not UTF-8.",
            action="Convert the model again with a current llama.cpp.",
        ),
        "STRING_TOO_LONG": Reason(
            meaning="A text in the GGUF header is longer than any such text.",
            action="Download the file again; it is damaged.",
        ),
        "TENSOR_TYPE_REMOVED": Reason(
            meaning="A tensor has a type that ggml has removed.",
            action="Convert the model again with a current llama.cpp.",
        ),
        "TENSOR_TYPE_UNKNOWN": Reason(
            meaning="A tensor has a type that is not known here.",
            action="Use a newer server if the type is new; else convert the model again.",
        ),
        "TOO_MANY_ELEMENTS": Reason(
            meaning="The metadata arrays hold more elements than those of any model.",
            action="Check that the file is what its name says.",
        ),
        "TOO_MANY_METADATA": Reason(
            meaning="The header announces more metadata than that of any model.",
            action="Check that the file is what its name says.",
        ),
        "TOO_MANY_TENSORS": Reason(
            meaning="A file or a checkpoint has more tensors than any model.",
            action="Check that the files are what their names say.",
        ),
        "VALUE_TYPE_UNKNOWN": Reason(
            meaning="A metadata value has a type that GGUF does not define.",
            action="Download the file again, or convert the model again with a current llama.cpp.",
        ),
    },
)
