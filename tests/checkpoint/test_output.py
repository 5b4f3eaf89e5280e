"""An output appears complete or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import threading
from pathlib import Path

import pytest

from quantd_server.checkpoint import output as output_module
from quantd_server.checkpoint.output import (
    OutputDirectory,
    OutputFile,
    receipt_of_published,
    working_directory,
)
from quantd_server.errors import QuantdError


def fill(output, name="model.gguf"):
    output.create(name, 8)
    output.write_at(name, 4, b"efgh")
    output.write_at(name, 0, memoryview(b"abcd"))


def refused(reason, act):
    """The error of ``act``, which must not name a path."""
    with pytest.raises(QuantdError) as caught:
        act()
    assert caught.value.reason == reason
    assert caught.value.field == "spec.output_uri"
    assert not re.search(r"(^|\s)/", caught.value.message + " " + caught.value.remedy)
    return caught.value


def test_nobody_else_looks_at_what_is_not_published(tmp_path):
    before = os.umask(0o022)
    try:
        with OutputDirectory(tmp_path / "out", "job-1") as output:
            fill(output, "a")
            assert output.working.stat().st_mode & 0o777 == 0o700
            output.commit()
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755  # as any folder of this user


def test_directory(tmp_path):
    final, source = tmp_path / "out", tmp_path / "tokenizer.json"
    source.write_text("{}")
    with OutputDirectory(final, "job-1") as output:
        fill(output, "a")
        output.write_text("config.json", "é")
        output.copy_in(source, "tokenizer.json")
        assert output.sha256("a") == hashlib.sha256(b"abcdefgh").hexdigest()
        assert not final.exists()
        output.commit()
    assert {path.name: path.read_bytes() for path in final.iterdir()} == {
        "a": b"abcdefgh",
        "config.json": "é".encode(),
        "tokenizer.json": b"{}",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tokenizer.json"]


@pytest.mark.parametrize(("kind", "name"), [(OutputDirectory, "out"), (OutputFile, "out.gguf")])
def test_a_receipt_tells_who_published(tmp_path, kind, name):
    final, single = tmp_path / name, kind is OutputFile

    def told(job_id):
        return receipt_of_published(final, job_id, single_file=single)

    def receipt():
        assert not final.exists()
        return b"receipt"

    with kind(final, "job-1") as output:
        fill(output, name)
        assert told("job-1") is None
        output.commit(receipt)
    assert told("job-1") == b"receipt"
    assert told("job-2") is None
    assert (final if single else final / name).read_bytes() == b"abcdefgh"
    working = working_directory(final, "job-1")
    if single:
        # A file system without links: the file was renamed.
        (working / "output" / name).unlink()
        assert told("job-1") == b"receipt"
        final.rename(working / "output" / name)
    else:
        final.rename(working / "output")
        final.mkdir()  # an output may be put in the place of an empty folder
    assert told("job-1") is None  # the rename was still to come
    if single:
        final.write_bytes(b"of somebody else")
        assert told("job-1") is None


@pytest.mark.parametrize(("kind", "name"), [(OutputDirectory, "out"), (OutputFile, "out.gguf")])
def test_a_receipt_that_could_not_be_followed_goes(tmp_path, kind, name):
    final = tmp_path / name

    def receipt():
        final.write_text("in the way")
        return b"receipt"

    with kind(final, "job-1") as output:
        fill(output, name)
        refused("OUTPUT_NOT_EMPTY", lambda: output.commit(receipt))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert receipt_of_published(final, "job-1", single_file=kind is OutputFile) is None


def test_file(tmp_path):
    with OutputFile(tmp_path / "model.gguf", "job-1") as output:
        fill(output)
        output.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
    assert (tmp_path / "model.gguf").read_bytes() == b"abcdefgh"


def test_a_file_system_without_hard_links(tmp_path, monkeypatch):
    def link(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(output_module.os, "link", link)
    test_file(tmp_path)


@pytest.mark.parametrize("kind", [OutputDirectory, OutputFile])
def test_nothing_is_left_of_an_aborted_output(tmp_path, kind):
    output = kind(tmp_path / "model.gguf", "j")
    with pytest.raises(KeyError), output:
        output.create(output.path("model.gguf").name, int({}["absent"]))
    assert list(tmp_path.iterdir()) == []
    with kind(tmp_path / "model.gguf", "j") as output:
        fill(output)
    assert list(tmp_path.iterdir()) == []
    output.abort()


def occupy_with_file(path):
    path.write_text("theirs")


def occupy_with_folder(path):
    path.mkdir()
    (path / "theirs").write_text("theirs")


def occupy_with_link(path):
    (path.parent / "elsewhere").mkdir()
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("occupy", [occupy_with_file, occupy_with_folder, occupy_with_link])
@pytest.mark.parametrize("kind", [OutputDirectory, OutputFile])
@pytest.mark.parametrize("meanwhile", [False, True])
@pytest.mark.parametrize("blind", [False, True])
def test_what_exists_is_never_replaced(tmp_path, monkeypatch, occupy, kind, meanwhile, blind):
    final = tmp_path / "model.gguf"
    if not meanwhile:
        occupy(final)
        refused("OUTPUT_NOT_EMPTY", lambda: kind(final, "j"))
        return
    with kind(final, "j") as output:
        fill(output)
        if blind:  # It came to exist between the look and the rename.
            monkeypatch.setattr(output, "_refuse_existing", lambda: None)
        occupy(final)
        before = sorted(path.name for path in tmp_path.rglob("theirs"))
        refused("OUTPUT_NOT_EMPTY", output.commit)
    assert sorted(path.name for path in tmp_path.rglob("theirs")) == before
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())
    assert final.is_symlink() or final.is_dir() or final.read_text() == "theirs"


def test_an_empty_folder_is_acceptable(tmp_path):
    (tmp_path / "out").mkdir()
    with OutputDirectory(tmp_path / "out", "j") as output:
        fill(output)
        output.commit()
    assert (tmp_path / "out" / "model.gguf").read_bytes() == b"abcdefgh"


def test_of_two_jobs_one_wins(tmp_path):
    final = tmp_path / "out"
    with OutputDirectory(final, "one") as one, OutputDirectory(final, "two") as two:
        fill(one, "one")
        fill(two, "two")
        one.commit()
        refused("OUTPUT_NOT_EMPTY", two.commit)
    assert [path.name for path in final.iterdir()] == ["one"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_same_job_twice(tmp_path):
    with OutputDirectory(tmp_path / "out", "one"):
        refused("OUTPUT_IN_USE", lambda: OutputDirectory(tmp_path / "out", "one"))


def test_resume(tmp_path):
    final = tmp_path / "out"
    output = OutputDirectory(final, "one")
    output.create("a", 8)
    output.write_at("a", 0, b"abcd")
    output.write_text("config.json", "old")
    (output.working / "journal").write_text("half")
    output.detach()
    with OutputDirectory(final, "one", resume=True) as output:
        assert (output.working / "journal").read_text() == "half"
        output.create("a", 8)
        output.write_at("a", 4, b"efgh")
        output.write_text("config.json", "new")
        output.commit()
    assert {path.name: path.read_text() for path in final.iterdir()} == {
        "a": "abcdefgh",
        "config.json": "new",
    }
    assert not working_directory(final, "one").exists()


def test_a_name_that_no_file_system_takes(tmp_path):
    refused("OUTPUT_NOT_WRITABLE", lambda: OutputDirectory(tmp_path / ("x" * 250), "j"))
    refused("OUTPUT_NOT_WRITABLE", lambda: OutputFile(tmp_path / ("x" * 300), "j"))


def test_missing_parent(tmp_path):
    refused("OUTPUT_PARENT_NOT_FOUND", lambda: OutputDirectory(tmp_path / "a" / "b", "j"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_when_reserving(tmp_path, monkeypatch, code):
    def fallocate(*_):
        raise OSError(code, "full")

    monkeypatch.setattr(output_module.os, "posix_fallocate", fallocate)
    with OutputDirectory(tmp_path / "out", "j") as output:
        refused("DISK_FULL", lambda: output.create("a", 8))
    assert list(tmp_path.iterdir()) == []


def test_more_than_the_disk_has(tmp_path):
    with OutputDirectory(tmp_path / "out", "j") as output:
        refused("DISK_FULL", lambda: output.create("a", 1 << 60))


def test_failed_write(tmp_path, monkeypatch):
    def pwrite(*_):
        raise OSError(errno.EIO, "broken")

    with OutputDirectory(tmp_path / "out", "j") as output:
        output.create("a", 8)
        monkeypatch.setattr(output_module.os, "pwrite", pwrite)
        refused("OUTPUT_NOT_WRITABLE", lambda: output.write_at("a", 0, b"x"))


def test_short_writes_are_continued(tmp_path, monkeypatch):
    pwrite = os.pwrite
    monkeypatch.setattr(output_module.os, "pwrite", lambda fd, data, at: pwrite(fd, data[:3], at))
    with OutputDirectory(tmp_path / "out", "j") as output:
        output.create("a", 10)
        output.write_at("a", 0, b"0123456789")
        assert output.path("a").read_bytes() == b"0123456789"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "../a", "a\0"])
def test_names_are_plain(tmp_path, name):
    with OutputDirectory(tmp_path / "out", "j") as output:
        with pytest.raises(ValueError):
            output.create(name, 1)
        with pytest.raises(ValueError):
            output.write_text(name, "x")


@pytest.mark.parametrize("job_id", ["", "..", "a/b", "a b", "x" * 65, "a\n"])
def test_job_ids_are_plain(tmp_path, job_id):
    with pytest.raises(ValueError):
        OutputDirectory(tmp_path / "out", job_id)


@pytest.mark.parametrize(("offset", "data"), [(-1, b"x"), (8, b"x"), (0, b"123456789")])
def test_writes_stay_inside_the_file(tmp_path, offset, data):
    with OutputDirectory(tmp_path / "out", "j") as output:
        output.create("a", 8)
        with pytest.raises(ValueError):
            output.write_at("a", offset, data)


def test_concurrent_writers(tmp_path):
    workers, piece = 8, 1 << 16
    contents = [bytes([number]) * piece for number in range(workers)]
    with OutputDirectory(tmp_path / "out", "j") as output:
        output.create("a", workers * piece)
        threads = [
            threading.Thread(target=output.write_at, args=("a", number * piece, content))
            for number, content in enumerate(contents)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        output.commit()
    assert (tmp_path / "out" / "a").read_bytes() == b"".join(contents)


def test_abort_waits_for_a_write_in_progress(tmp_path, monkeypatch):
    pwrite, begun, go_on = os.pwrite, threading.Event(), threading.Event()

    def slow(descriptor, data, offset):
        begun.set()
        assert go_on.wait(10)
        return pwrite(descriptor, data, offset)  # would fail if closed by then

    monkeypatch.setattr(output_module.os, "pwrite", slow)
    output = OutputDirectory(tmp_path / "out", "j")
    output.create("a", 4)
    failures = []

    def write():
        try:
            output.write_at("a", 0, b"abcd")
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    assert begun.wait(10)
    aborter = threading.Thread(target=output.abort)
    aborter.start()
    aborter.join(0.05)
    assert aborter.is_alive()
    go_on.set()
    writer.join(10)
    aborter.join(10)
    assert failures == []
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError):
        output.write_at("a", 0, b"x")


def test_a_record_that_cannot_be_published_leaves_no_file_visible(tmp_path: Path) -> None:
    final = tmp_path / "model.gguf"
    (tmp_path / "model.gguf.quantd.json").mkdir()
    with OutputFile(final, "job") as output:
        output.create("model.gguf", 4)
        output.write_text("model.gguf.quantd.json", "{}")
        with pytest.raises(QuantdError):
            output.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf.quantd.json"]


def test_a_file_that_cannot_be_published_takes_its_record_back(tmp_path: Path) -> None:
    final = tmp_path / "model.gguf"
    with OutputFile(final, "job") as output:
        output.create("model.gguf", 4)
        output.write_text("model.gguf.quantd.json", "{}")
        output._refuse_existing = lambda: None  # it comes to exist after the last look
        final.write_bytes(b"other")
        with pytest.raises(QuantdError):
            output.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
    assert final.read_bytes() == b"other"
