"""What stands against an output, said before anything is done."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple

import pytest
from tests import tiny_models
from tests.quantizing import planned, quantize, specification

METHODS = ["bitsandbytes_8bit", "bitsandbytes_4bit", "gguf"]


def reasons(source, output, method, config=None) -> list[str]:
    report = planned(specification(source, output, method, config))
    assert report.executable == (not report.findings)
    # The plan is there whatever is wrong with the output.
    assert report.plan is not None
    return [finding.reason for finding in report.findings]


@pytest.fixture
def source(tmp_path):
    return tiny_models.write(tmp_path / "source")


def name_for(method) -> str:
    return "output.gguf" if method == "gguf" else "output"


@pytest.mark.parametrize("method", METHODS)
def test_a_new_path(tmp_path, source, method) -> None:
    assert reasons(source, tmp_path / name_for(method), method, tiny(method)) == []
    assert reasons(source, tmp_path / "new" / "deep" / name_for(method), method, tiny(method)) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def tiny(method) -> dict:
    """A configuration that no tensor of a tiny model falls back from."""
    return {"file_type": "Q8_0"} if method == "gguf" else {}


def test_an_empty_directory_may_exist(tmp_path, source) -> None:
    (tmp_path / "output").mkdir()
    assert reasons(source, tmp_path / "output", "bitsandbytes_4bit") == []


@pytest.mark.parametrize("method", METHODS)
def test_occupied(tmp_path, source, method) -> None:
    output = tmp_path / name_for(method)
    output.mkdir()
    (output / "file").touch()
    assert reasons(source, output, method, tiny(method)) == ["OUTPUT_NOT_EMPTY"]
    shutil.rmtree(output)
    output.touch()
    assert "OUTPUT_NOT_EMPTY" in reasons(source, output, method, tiny(method))


def test_a_dangling_link_is_followed_to_where_it_leads(tmp_path, source) -> None:
    (tmp_path / "output").symlink_to(tmp_path / "elsewhere")
    report = planned(specification(source, tmp_path / "output", "bitsandbytes_4bit"))
    assert report.executable
    assert report.output_path == str(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("method", "name"),
    [("gguf", "output"), ("gguf", "output.bin"), ("bitsandbytes_8bit", "output.gguf")],
)
def test_the_wrong_form(tmp_path, source, method, name) -> None:
    assert reasons(source, tmp_path / name, method, tiny(method)) == ["OUTPUT_FORM"]


@pytest.mark.parametrize("method", METHODS)
def test_inside_or_around_the_source(tmp_path, method) -> None:
    source = tiny_models.write(tmp_path / "outer" / "source")
    inside = source / name_for(method)
    assert "OUTPUT_INSIDE_SOURCE" in reasons(source, inside, method, tiny(method))
    (tmp_path / "alias").symlink_to(source)
    through_link = tmp_path / "alias" / name_for(method)
    with_link = planned_with_roots(source, through_link, method, tmp_path)
    assert "OUTPUT_INSIDE_SOURCE" in [finding.reason for finding in with_link.findings]
    if method != "gguf":
        assert "OUTPUT_INSIDE_SOURCE" in reasons(source, tmp_path / "outer", method)
        assert "OUTPUT_INSIDE_SOURCE" in reasons(source, source, method)


def planned_with_roots(source, output, method, root):
    from quantd_server.planning.planner import plan
    from quantd_server.planning.roots import Roots

    roots = Roots.of((str(root),), (str(root),))
    spec = specification(source, output, method, tiny(method))
    return plan(spec, roots, offset=0, page_size=0)


def test_outside_the_roots_is_a_finding_of_a_plan(tmp_path, source) -> None:
    (tmp_path / "allowed").mkdir()
    report = planned_with_roots_of_output(source, tmp_path)
    (finding,) = report.findings
    assert (finding.reason, finding.field) == ("PATH_OUTSIDE_ROOTS", "spec.output_uri")
    assert str(tmp_path) not in finding.message
    assert report.plan is not None


def planned_with_roots_of_output(source, tmp_path):
    from quantd_server.planning.planner import plan
    from quantd_server.planning.roots import Roots

    roots = Roots.of((str(tmp_path),), (str(tmp_path / "allowed"),))
    spec = specification(source, tmp_path / "elsewhere", "bitsandbytes_4bit")
    return plan(spec, roots, offset=0, page_size=0)


def test_a_source_file_as_output(tmp_path, source) -> None:
    quantize(source, tmp_path / "bf16.gguf", "gguf", {"file_type": "BF16"})
    found = reasons(tmp_path / "bf16.gguf", tmp_path / "bf16.gguf", "gguf", {"file_type": "Q8_0"})
    assert found == ["OUTPUT_INSIDE_SOURCE", "OUTPUT_NOT_EMPTY"]


DiskUsage = namedtuple("DiskUsage", "total used free")  # noqa: PYI024 -- as shutil's own


def test_disk_too_small(tmp_path, source, monkeypatch) -> None:
    needed = planned(specification(source, "", "bitsandbytes_4bit")).plan.output_bytes
    spare = 64 << 20
    for free, expected in ((needed + spare - 1, ["DISK_TOO_SMALL"]), (needed + spare, [])):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: DiskUsage(1 << 40, 0, free))
        assert reasons(source, tmp_path / "output", "bitsandbytes_4bit") == expected


def test_a_folder_that_may_not_be_written(tmp_path, source, monkeypatch) -> None:
    # The tests may run as root, whom no permission stops.
    locked = tmp_path / "locked"
    locked.mkdir()
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: str(path) != str(locked) and real(path, mode)
    )
    assert reasons(source, locked / "output", "bitsandbytes_4bit") == ["OUTPUT_NOT_WRITABLE"]
    assert reasons(source, locked / "new" / "x", "bitsandbytes_4bit") == ["OUTPUT_NOT_WRITABLE"]


def test_below_a_file(tmp_path, source) -> None:
    (tmp_path / "file").touch()
    for below in ("file/output", "file/deeper/output"):
        assert reasons(source, tmp_path / below, "bitsandbytes_4bit") == ["OUTPUT_NOT_WRITABLE"]


@pytest.mark.parametrize("length", [215, 255, 256, 5000])
@pytest.mark.parametrize("method", METHODS)
def test_a_name_too_long_for_the_file_system(tmp_path, source, method, length) -> None:
    # The hidden folder beside the output is named after it and has to fit too.
    name = "n" * (length - len(".gguf")) + ".gguf" if method == "gguf" else "n" * length
    assert reasons(source, tmp_path / name, method, tiny(method)) == ["OUTPUT_NAME_TOO_LONG"]


@pytest.mark.parametrize("method", METHODS)
def test_the_longest_name_that_fits_works(tmp_path, source, method) -> None:
    name = "ä" * 91  # 182 bytes
    name += ".gguf" if method == "gguf" else ""
    quantize(source, tmp_path / name, method, tiny(method))
    assert (tmp_path / name).exists()
