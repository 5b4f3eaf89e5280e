"""Writes the .proto files that the spec imports into `third_party/`, from installed packages.

* `google/rpc/*.proto` are copied from googleapis-common-protos, which ships them as text.
* `buf/validate/validate.proto` is printed from the descriptor that protovalidate carries.

Their versions are those of the two packages, pinned in `requirements.lock`. Nothing is downloaded
here, and `third_party/` is never committed.

Usage: python tools/third_party_protos.py [DIRECTORY]
"""

from __future__ import annotations

import argparse
import importlib.metadata
from pathlib import Path

import protovalidate
from google.protobuf import (
    descriptor,
    descriptor_pb2,
    duration_pb2,
    field_mask_pb2,
    timestamp_pb2,
)

from proto_printer import print_file

REPOSITORY = Path(__file__).resolve().parent.parent
THIRD_PARTY = REPOSITORY / "third_party"
GOOGLE_RPC_FILES = (
    "google/rpc/code.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
)


def validate_descriptor() -> descriptor_pb2.FileDescriptorProto:
    """The descriptor of buf/validate/validate.proto as the installed protovalidate has it."""
    serialized = protovalidate.ViolationsPb.desc().file.proto.to_binary()
    return descriptor_pb2.FileDescriptorProto.FromString(serialized)


def well_known_dependencies() -> list[descriptor_pb2.FileDescriptorProto]:
    """The files of google/protobuf that buf/validate/validate.proto imports."""
    files: list[descriptor.FileDescriptor] = [
        module.DESCRIPTOR
        for module in (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2)
    ]
    return [descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb) for file in files]


def validate_source() -> str:
    """The text of buf/validate/validate.proto, without the comments of its authors."""
    version = importlib.metadata.version("protovalidate")
    header = (
        "// Copyright 2023-2026 Buf Technologies, Inc. Apache License, Version 2.0.\n"
        f"// Printed from the descriptor in the PyPI package protovalidate {version}.\n\n"
    )
    return header + print_file(validate_descriptor(), well_known_dependencies())


def google_rpc_sources() -> dict[str, str]:
    """Import path → text of the google/rpc files."""
    distribution = importlib.metadata.distribution("googleapis-common-protos")
    sources = {}
    for name in GOOGLE_RPC_FILES:
        path = Path(str(distribution.locate_file(name)))
        if not path.is_file():
            raise FileNotFoundError(
                f"googleapis-common-protos {distribution.version} has no {name}; "
                "install the version that requirements.lock pins"
            )
        sources[name] = path.read_text(encoding="utf-8")
    return sources


def write(directory: Path) -> None:
    """Writes the two import roots `protovalidate/` and `googleapis/` under `directory`."""
    sources = {"protovalidate/buf/validate/validate.proto": validate_source()}
    sources |= {f"googleapis/{name}": text for name, text in google_rpc_sources().items()}
    for name, text in sources.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Write the third-party .proto files that the spec imports."
    )
    parser.add_argument("directory", type=Path, nargs="?", default=THIRD_PARTY)
    write(parser.parse_args().directory)


if __name__ == "__main__":
    main()
