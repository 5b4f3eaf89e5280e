"""This host."""

from __future__ import annotations

from quantd_server.reasons.entry import Area, Reason

AREA = Area(
    title="This host",
    about="What the host lacks for quantizing or for loading a checkpoint.",
    reasons={
        "CAPABILITIES_UNKNOWN": Reason(
            meaning="The host could not be examined.",
            action="Try again with backoff; the server's log says what is wrong.",
        ),
        "COMPUTE_CAPABILITY_TOO_LOW": Reason(
            meaning="The compute capability of the card is below what the engine needs for this "
            "method.",
            action="Use a newer card, or another engine.",
        ),
        "CONTEXT_BEYOND_MODEL": Reason(
            meaning="The context asked about is longer than the one that the model was made for.",
            action="Ask for at most the context of the model.",
        ),
        "CUDA_DEVICE_MISSING": Reason(
            meaning="The engine needs an NVIDIA card, and the driver lists none.",
            action="Use a host with a card of at least the compute capability that the remedy "
            "names.",
        ),
        "DEVICE_NOT_AVAILABLE": Reason(
            meaning="The method cannot run on that device here.",
            action="Leave `device` out, or set it to one that the message names.",
        ),
        "LLAMA_CPP_NOT_FOUND": Reason(
            meaning="Neither a program of llama.cpp nor llama-cpp-python is on this host.",
            action="Install llama.cpp, or take the file to where it is.",
        ),
        "MEMORY_TIGHT": Reason(
            meaning="Weights and cache leave little memory for activations and the engine itself.",
            action="Free memory, or use a shorter context.",
        ),
        "MEMORY_TOO_SMALL": Reason(
            meaning="Weights and cache do not fit into the memory that is free.",
            action="Do what the remedy says: a shorter context, several cards, more free memory "
            "or fewer bits.",
        ),
        "PACKAGE_MISSING": Reason(
            meaning="A Python package is not installed.",
            action="Install it as the remedy says.",
        ),
        "PACKAGE_TOO_OLD": Reason(
            meaning="A Python package is installed in a version that is too old.",
            action="Upgrade it as the remedy says.",
        ),
        "QUANTIZATION_NOT_ASSESSED": Reason(
            meaning="What the engine needs for this quantization is not known here; only the "
            "memory was compared.",
            action="Look into the engine's documentation.",
        ),
    },
)
