"""What the Go code of the spec is generated from, and when it is outdated."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

import generate_go
from quantd._third_party.buf.validate import validate_pb2


@pytest.fixture(scope="module")
def compiled() -> FileDescriptorSet:
    return generate_go.compile_spec()


def test_rules_are_left_out(compiled: FileDescriptorSet) -> None:
    # To this process they are known extensions, to the tool unknown fields.
    assert validate_pb2.DESCRIPTOR.name == generate_go.RULES
    assert compiled.file
    for file in compiled.file:
        assert generate_go.RULES not in file.dependency
        assert "buf.validate" not in str(file)
        assert file == type(file).FromString(file.SerializeToString(deterministic=True))


def test_comments_are_kept(compiled: FileDescriptorSet) -> None:
    (jobs,) = [file for file in compiled.file if file.name == "quantd/v1/job_service.proto"]
    comments = [place.leading_comments for place in jobs.source_code_info.location]
    assert " Looks after jobs." in "".join(comments)


def test_an_outdated_file_is_named(tmp_path: Path) -> None:
    files = {"a.pb.go": "package a", "b.pb.go": "package b"}
    folder = tmp_path / "package"
    generate_go.write(folder, files)
    generate_go.check(folder, files)
    (folder / "own.go").write_text("not generated")
    generate_go.check(folder, files)
    for change in ({"a.pb.go": "package c"}, {"c.pb.go": ""}):
        with pytest.raises(generate_go.GenerationError, match=next(iter(change))):
            generate_go.check(folder, files | change)
    generate_go.write(folder, {"a.pb.go": "package a"})
    assert sorted(path.name for path in folder.iterdir()) == ["a.pb.go", "own.go"]
