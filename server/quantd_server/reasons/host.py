"""This host."""

from __future__ import annotations

from quantd_server.reasons.entry import Area, Reason

AREA = Area(
    title="This host",
    about="What the host lacks for quantizing or for loading a checkpoint.",
    reasons={
        "BITSANDBYTES_LACKS_DEVICE": Reason(
            meaning="The installed bitsandbytes has no code for that kind of device that fits the "
            "installed torch.",
            action="Install a newer bitsandbytes, or a torch that it has code for.",
        ),
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
        "DEVICE_MISSING": Reason(
            meaning="No driver lists a device of the kind to quantize on.",
            action="Use a host that has one, or another device.",
        ),
        "DEVICE_NOT_AVAILABLE": Reason(
            meaning="The method cannot run on that device here.",
            action="Leave `device` out, or set it to one that the message names.",
        ),
        "DEVICE_NOT_SERVED": Reason(
            meaning="This server does not compute the method on that kind of device.",
            action="Choose a device that the message names.",
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
        "MEMORY_UNKNOWN": Reason(
            meaning="The driver does not tell how much memory the device has, so that nothing can "
            "be compared.",
            action="Look it up in the maker's data sheet.",
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
        "TORCH_BUILT_FOR_OTHER_DEVICE": Reason(
            meaning="The installed torch is built for another kind of device.",
            action="Install the build of torch for this kind.",
        ),
        "TORCH_CANNOT_USE_DEVICE": Reason(
            meaning="The installed torch is built for this kind of device, but finds none that it "
            "can use.",
            action="Install a driver that is new enough for the build, or an older build; see "
            "that nothing hides the device from the server's user.",
        ),
        "TORCH_DOES_NOT_WORK": Reason(
            meaning="Torch is installed, but cannot be imported.",
            action="Run `python -c 'import torch'` with the server's Python, and install torch "
            "again.",
        ),
        "TORCH_LACKS_KERNELS": Reason(
            meaning="The installed torch has no kernels for a card of this age.",
            action="Install a build of torch for this card: an older version for an older card, a "
            "newer one for a newer card.",
        ),
        "TORCH_NOT_ASKED_YET": Reason(
            meaning="It is not known yet whether torch can compute on the device.",
            action="Try again in a few seconds.",
        ),
    },
)
