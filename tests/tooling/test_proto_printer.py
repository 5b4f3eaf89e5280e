"""Printed .proto text compiles to the descriptor it was printed from; protoc is the oracle."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import grpc_tools
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

from proto_printer import print_file

WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"

EVERYTHING_PROTO2 = """
syntax = "proto2";
package everything.v1;
import "google/protobuf/descriptor.proto";
import public "google/protobuf/any.proto";
option java_package = "quoted \\" and \\\\ and \\303\\251";
option (label) = "a file";
option (ratios) = 0.1;
option (ratios) = -2.5e-300;
extend google.protobuf.FileOptions {
  optional string label = 50000;
  repeated double ratios = 50001;
}
extend google.protobuf.FieldOptions {
  optional Rule rule = 50000;
  repeated Rule rules = 50001;
  optional bytes raw = 50002;
  optional sint64 signed = 50003;
  optional bool flag = 50004;
  optional Level level = 50005;
  optional float single = 50006;
}
extend google.protobuf.OneofOptions { optional bool exclusive = 50000; }
extend google.protobuf.MessageOptions { optional Rule message_rule = 50000; }
extend google.protobuf.EnumOptions { optional string enum_label = 50000; }
extend google.protobuf.EnumValueOptions { optional string value_label = 50000; }
enum Level {
  option allow_alias = true;
  option (enum_label) = "levels";
  reserved -5, 10 to 12, 100 to max;
  reserved "LEVEL_GONE";
  LEVEL_LOW = -1 [(value_label) = "low", deprecated = true];
  LEVEL_HIGH = 1;
  LEVEL_TOP = 1;
}
message Rule {
  option (message_rule) = { expression: "self" children { expression: 'it\\'s "so"\\n' } };
  optional string expression = 1;
  repeated Rule children = 2;
  extensions 100 to 199, 1000 to max;
  extend Rule { optional Rule nested = 100; }
}
message Everything {
  reserved 3, 20 to 30, 1000 to max;
  reserved "gone", "gone_too";
  message Inner { enum Kind { KIND_A = 0; } optional Kind kind = 1;
    map<int32, string> names = 2;
  }
  map<string, Inner> first = 14;
  message Later { message Deeper {} map<bool, Deeper> deep = 1; }
  required int32 number = 1 [default = -7, (rule).expression = "this > 0", (flag) = true];
  optional string text = 2 [default = "a \\"b\\" \\303\\251\\n", json_name = "TEXT"];
  optional bytes blob = 4 [default = "\\000\\377'\\"", (raw) = "\\001\\377\\""];
  optional Level level = 5 [
    default = LEVEL_HIGH,
    (everything.v1.level) = LEVEL_LOW,
    (signed) = -9,
    (single) = 0.1
  ];
  optional double infinite = 6 [default = -inf];
  optional float not_a_number = 7 [default = nan];
  optional bool truth = 8 [default = true];
  repeated int32 packed_numbers = 9 [
    packed = true,
    (rules) = {expression: "1"},
    (rules) = {[everything.v1.Rule.nested] {expression: "2"}}
  ];
  map<string, Inner> inners = 10;
  oneof choice {
    option (exclusive) = true;
    string left = 11;
    .everything.v1.Everything.Inner right = 12;
  }
  optional google.protobuf.Any any_value2 = 13;
}
service Everyone {
  option deprecated = true;
  rpc Unary(Rule) returns (Everything) { option idempotency_level = NO_SIDE_EFFECTS; }
  rpc Both(stream Rule) returns (stream Everything);
}
"""

EVERYTHING_PROTO3 = """
syntax = "proto3";
message Root {
  optional int32 present = 1;
  int32 implicit = 2;
  repeated int32 unpacked = 3 [packed = false];
  map<string, Root> children = 4;
  oneof either { string one = 5; optional_like two = 6; }
}
message optional_like {}
"""


def compile_protos(root: Path, names: list[str], output: Path) -> dict[str, FileDescriptorProto]:
    """Compiles files below `root` into `output`; returns them and what they import, in order."""
    roots = [f"-I{root}", f"-I{WELL_KNOWN}"]
    options = ["--include_imports", f"--descriptor_set_out={output}"]
    assert protoc.main(["protoc", *roots, *options, *names]) == 0
    return {file.name: file for file in FileDescriptorSet.FromString(output.read_bytes()).file}


def print_again(
    files: dict[str, FileDescriptorProto], root: Path
) -> dict[str, FileDescriptorProto]:
    """Prints every file below `root` and compiles what was printed."""
    for name, file in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(print_file(file, files.values()), encoding="utf-8")
    return compile_protos(root, list(files), root / "printed.binpb")


@pytest.mark.parametrize("source", [EVERYTHING_PROTO2, EVERYTHING_PROTO3], ids=["proto2", "proto3"])
def test_every_construct_survives_printing(source: str, tmp_path: Path) -> None:
    (tmp_path / "everything.proto").write_text(source, encoding="utf-8")
    files = compile_protos(tmp_path, ["everything.proto"], tmp_path / "original.binpb")
    assert print_again(files, tmp_path / "printed")["everything.proto"] == files["everything.proto"]


def test_real_files_survive_printing(tmp_path: Path) -> None:
    """googleapis: services, maps, oneofs and custom options written by other people."""
    distribution = importlib.metadata.distribution("googleapis-common-protos")
    names = [str(path) for path in distribution.files or () if path.suffix == ".proto"]
    assert len(names) > 20
    root = Path(str(distribution.locate_file("")))
    files = compile_protos(root, names, tmp_path / "original.binpb")
    printed = print_again(files, tmp_path / "printed")
    assert [name for name in files if printed[name] != files[name]] == []


def test_groups_are_refused(tmp_path: Path) -> None:
    (tmp_path / "old.proto").write_text('syntax = "proto2"; message M { optional group G = 1 {} }')
    file = compile_protos(tmp_path, ["old.proto"], tmp_path / "old.binpb")["old.proto"]
    with pytest.raises(ValueError, match="group"):
        print_file(file)


def test_editions_are_refused() -> None:
    with pytest.raises(ValueError, match="editions"):
        print_file(FileDescriptorProto(name="new.proto", syntax="editions"))
