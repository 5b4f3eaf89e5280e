"""The spec's build: third-party protos, generated Python, baseline."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import grpc_tools
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message
from grpc_tools import protoc

import generate
import third_party_protos
from quantd import v1
from quantd._third_party.buf.validate import validate_pb2

BUF = Path(sys.executable).with_name("buf")


def buf(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BUF, *arguments],
        cwd=generate.REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> list[FileDescriptorProto]:
    """The spec's own files as buf compiles them."""
    output = tmp_path_factory.mktemp("spec") / "spec.binpb"
    result = buf("build", "proto", "--exclude-imports", "--output", str(output))
    assert result.returncode == 0, result.stderr
    return list(FileDescriptorSet.FromString(output.read_bytes()).file)


def test_printed_validate_proto_compiles_to_its_descriptor(tmp_path: Path) -> None:
    third_party_protos.write(tmp_path)
    output = tmp_path / "validate.binpb"
    arguments = [
        f"-I{tmp_path / 'protovalidate'}",
        f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
        f"--descriptor_set_out={output}",
        generate.VALIDATE_PROTO,
    ]
    assert protoc.main(["protoc", *arguments]) == 0
    (compiled,) = FileDescriptorSet.FromString(output.read_bytes()).file
    assert compiled == third_party_protos.validate_descriptor()


def test_vendored_rules_are_those_of_the_validator() -> None:
    """The validator and the generated code must mean the same rules by the same numbers."""
    generated = FileDescriptorProto.FromString(validate_pb2.DESCRIPTOR.serialized_pb)
    original = third_party_protos.validate_descriptor()
    assert without_json_names(generated) == without_json_names(original)


def without_json_names(file: FileDescriptorProto) -> FileDescriptorProto:
    """Drops what protoc's Python plugin leaves out; the rules have default JSON names only."""
    for message in file.message_type:
        for field in message.field:
            field.ClearField("json_name")
    for extension in file.extension:
        extension.ClearField("json_name")
    return file


def test_generation_is_deterministic(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    generate.generate(first)
    generate.generate(second)
    assert generate.difference(first, second) == ""
    assert (first / "v1" / "__init__.py").is_file()


def test_a_stale_or_edited_file_is_a_difference(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    for package in (before, after):
        (package / "v1").mkdir(parents=True)
        (package / "v1" / "job_pb2.py").write_text("A = 1\n")
    (before / "v1" / "stale_pb2.py").write_text("B = 1\n")
    (after / "v1" / "job_pb2.py").write_text("A = 2\n")
    changes = generate.difference(before, after)
    assert "-B = 1" in changes
    assert "+A = 2" in changes


def test_every_type_and_service_is_exported_flat(spec: list[FileDescriptorProto]) -> None:
    types = {each.name for file in spec for each in (*file.message_type, *file.enum_type)}
    services = {service.name for file in spec for service in file.service}
    stubs = {
        name
        for service in services
        for name in (
            f"{service}Stub",
            f"{service}Servicer",
            f"add_{service}Servicer_to_server",
        )
    }
    assert set(v1.__all__) == types | stubs
    for name in v1.__all__:
        assert hasattr(v1, name)


def test_python_knows_the_spec_as_buf_compiles_it(spec: list[FileDescriptorProto]) -> None:
    for file in spec:
        module = importlib.import_module(
            file.name.removesuffix(".proto").replace("/", ".") + "_pb2"
        )
        assert {*module.DESCRIPTOR.message_types_by_name} == {
            each.name for each in file.message_type
        }
        for message in file.message_type:
            generated = getattr(module, message.name)
            assert issubclass(generated, Message)
            assert {(field.name, field.number) for field in generated.DESCRIPTOR.fields} == {
                (field.name, field.number) for field in message.field
            }


def test_only_files_with_services_have_stubs(spec: list[FileDescriptorProto]) -> None:
    with_services = {Path(file.name).stem for file in spec if file.service}
    stub_modules = (generate.PACKAGE / "v1").glob("*_pb2_grpc.py")
    assert {path.name.removesuffix("_pb2_grpc.py") for path in stub_modules} == with_services


def test_no_top_level_package_buf_is_imported() -> None:
    code = "import quantd.v1, sys; sys.exit('buf' in sys.modules)"
    command = [sys.executable, "-W", "error", "-c", code]
    assert subprocess.run(command, cwd=generate.PACKAGE.parent, check=False).returncode == 0


def test_baseline_is_complete_and_kept() -> None:
    baseline = generate.SPEC / "baseline.binpb"
    files = {file.name: file for file in FileDescriptorSet.FromString(baseline.read_bytes()).file}
    imported = {name for file in files.values() for name in file.dependency}
    assert imported <= files.keys()
    result = buf("breaking", "proto", "--against", str(baseline))
    assert result.returncode == 0, result.stdout
