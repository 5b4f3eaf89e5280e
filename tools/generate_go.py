"""Generates the Go code of the spec into `clients/go/quantdv1/`.

buf compiles the spec, and the two Go plugins, at the versions below, write the code. The rules of
the messages are left out: a server checks them, and without them the module needs gRPC and protobuf
only. Without Go nothing is done, and that is said.

Usage: python tools/generate_go.py [--check]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2
from google.protobuf.message import Message

from generation import REPOSITORY, GenerationError, installed, require_same, run

MODULE = REPOSITORY / "clients/go"
MODULE_PATH = "github.com/quantd/quantd/clients/go"
PACKAGE = "quantdv1"
PLUGINS = {
    "google.golang.org/protobuf/cmd/protoc-gen-go": "v1.36.12",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc": "v1.6.2",
}
RULES = "buf/validate/validate.proto"


def generate(go: str) -> dict[str, str]:
    """The files of the Go package: their text by name."""
    request = _request(compile_spec())
    written: dict[str, str] = {}
    for plugin, version in PLUGINS.items():
        output = run([go, "run", f"{plugin}@{version}"], request.SerializeToString())
        response = plugin_pb2.CodeGeneratorResponse.FromString(output)
        if response.error:
            raise GenerationError(f"{plugin}: {response.error}")
        written |= {Path(file.name).name: file.content for file in response.file}
    return written


def compile_spec() -> descriptor_pb2.FileDescriptorSet:
    """The spec and what it imports, with comments and without rules."""
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / "spec.binpb"
        run([installed("buf"), "build", "proto", "--output", str(output)])
        compiled = descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes())
    kept = descriptor_pb2.FileDescriptorSet()
    for file in compiled.file:
        if file.name != RULES:
            _drop_rules(kept.file.add(), file)
    return kept


def _drop_rules(
    kept: descriptor_pb2.FileDescriptorProto, file: descriptor_pb2.FileDescriptorProto
) -> None:
    """Copies a file without the import of the rules and without every option that is one."""
    kept.CopyFrom(file)
    if RULES in kept.dependency:
        kept.dependency.remove(RULES)
    # Rules are extensions: unknown to this program, unless something has imported their messages.
    _drop_extensions(kept)
    kept.DiscardUnknownFields()


def _drop_extensions(message: Message) -> None:
    for field, value in message.ListFields():
        if field.is_extension:
            message.ClearExtension(field)  # type: ignore[arg-type]
        elif field.message_type is not None:
            for each in value if field.is_repeated else [value]:
                _drop_extensions(each)


def _request(compiled: descriptor_pb2.FileDescriptorSet) -> plugin_pb2.CodeGeneratorRequest:
    own = [file.name for file in compiled.file if file.name.startswith("quantd/")]
    packages = [f"M{name}={MODULE_PATH}/{PACKAGE}" for name in own]
    return plugin_pb2.CodeGeneratorRequest(
        file_to_generate=own, parameter=",".join(packages), proto_file=compiled.file
    )


def write(folder: Path, files: dict[str, str]) -> None:
    """Replaces what was generated into `folder` before."""
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.pb.go"):
        path.unlink()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def check(folder: Path, files: dict[str, str]) -> None:
    """Raises GenerationError when committed code is not what the spec generates now."""
    committed = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.pb.go")}
    require_same(committed, files)


def main() -> int:
    parser = argparse.ArgumentParser(description="Generate the Go code of the spec.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail when committed code is outdated"
    )
    arguments = parser.parse_args()
    go = shutil.which("go")
    if go is None:
        print("skipping the Go code of the spec: go is not installed")
        return 0
    try:
        files = generate(go)
        check(MODULE / PACKAGE, files) if arguments.check else write(MODULE / PACKAGE, files)
    except GenerationError as error:
        print(f"generate_go: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
