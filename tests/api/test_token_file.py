"""The file of tokens: what it may say, who may read it, and that changes count at once."""

from __future__ import annotations

import contextlib
import os
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.api import tokens_on_disk
from tests.api.servers import ScriptedJobs, ScriptedPlanner, refused, running
from tests.api.tokens_on_disk import bearing, entry, token_of

from quantd import v1
from quantd_server.api.token_file import TokenFile, entries_in, new_token
from quantd_server.errors import QuantdError
from quantd_server.planning.roots import Roots


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tokens.toml"


@pytest.fixture
def opened(tmp_path, path):
    """Opens the file; ``opened.log`` has what it said."""
    lines = []

    def open_file(**options):
        roots = Roots.of((str(tmp_path),), (str(tmp_path / "out"),))
        return TokenFile(str(path), roots, lambda event, **_: lines.append(event), **options)

    open_file.log = lines
    return open_file


def reason_of(call, *arguments) -> str:
    with pytest.raises(QuantdError) as error:
        call(*arguments)
    assert error.value.remedy
    return error.value.reason


def test_an_entry_says_who_and_what(path, opened):
    tokens_on_disk.write(path, entry("a", "submit"), entry("b.example", is_certificate=True))
    file = opened()
    assert file.of_token(token_of("a")).role == "submit"
    assert file.of_token(token_of("a")).roots is None
    assert file.of_certificate("b.example").role == "read"
    assert reason_of(file.of_token, token_of("b.example")) == "TOKEN_INVALID"
    assert reason_of(file.of_certificate, "a") == "CERTIFICATE_UNKNOWN"


def test_the_file_lets_nobody_in_who_reads_it(path, opened):
    tokens_on_disk.write(path, entry("a"))
    file = opened()
    for text in re.findall(r'"([^"]+)"', path.read_text()):
        assert reason_of(file.of_token, text) == "TOKEN_INVALID"


def test_new_tokens_are_long_and_never_the_same():
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch(r"quantd_[A-Za-z0-9_-]{43}", token) for token in tokens)


GOOD = entry("a")


@pytest.mark.parametrize(
    "text",
    [
        "[[token]",
        "token = 1",
        "[[tokens]]\n",
        GOOD + "scope = 1",
        GOOD.replace("read", "root"),
        GOOD.replace('name = "a"', ""),
        GOOD.replace('"a"', '"a b"'),
        GOOD.replace('"a"', '""'),
        GOOD.replace('role = "read"', ""),
        GOOD.replace('sha256 = "', 'sha256 = "0'),
        GOOD.upper(),
        GOOD + GOOD,
        GOOD + GOOD.replace('"a"', '"b"'),
        GOOD + entry("a", is_certificate=True),
        GOOD + 'source_roots = ["relative"]',
        GOOD + 'source_roots = "/a"',
        GOOD + "expires = 2027-01-01",
        GOOD + "expires = 2027-01-01T00:00:00",
        GOOD + 'expires = "soon"',
        entry("a", "admin") + 'source_roots = ["/a"]',
        "a = " + "[" * 5000,
    ],
)
def test_what_is_not_understood(text):
    assert reason_of(entries_in, text.encode()) == "TOKEN_FILE_INVALID"


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_odd_files_are_errors_of_ours(data):
    with contextlib.suppress(QuantdError):  # anything else fails the test
        entries_in(data)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o620, 0o644, 0o666])
def test_a_file_that_others_can_read_or_change_is_refused(path, opened, mode):
    tokens_on_disk.write(path, entry("a"))
    path.chmod(mode)
    assert reason_of(opened) == "SECRET_FILE_EXPOSED"


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
def test_a_private_file_is_not(path, opened, mode):
    tokens_on_disk.write(path, entry("a"))
    path.chmod(mode)
    assert opened().of_token(token_of("a"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(path, opened):
    tokens_on_disk.write(path, entry("a"))
    os.chown(path, 12345, -1)
    assert reason_of(opened) == "SECRET_FILE_EXPOSED"


def test_a_file_that_is_not_there_or_no_file(tmp_path, path, opened):
    assert reason_of(opened) == "SECRET_FILE_UNREADABLE"
    path.mkdir()
    assert reason_of(opened) == "SECRET_FILE_UNREADABLE"
    path.rmdir()
    os.mkfifo(path, 0o600)
    assert reason_of(opened) == "SECRET_FILE_UNREADABLE"


def test_expiry(path, opened):
    tokens_on_disk.write(path, entry("a", expires=tokens_on_disk.EXPIRED))
    now = tokens_on_disk.EXPIRED.timestamp()
    assert opened(clock=lambda: now - 1).of_token(token_of("a"))
    assert reason_of(opened(clock=lambda: now).of_token, token_of("a")) == "CREDENTIALS_EXPIRED"


def test_roots_narrow_those_of_the_server(tmp_path, path, opened):
    inside, out = tmp_path / "team", tmp_path / "out"
    tokens_on_disk.write(
        path,
        entry("one", sources=[inside]),
        entry("two", outputs=[out / "x"]),
        entry("none", sources=[], outputs=[]),
    )
    file = opened()
    assert file.of_token(token_of("one")).roots == Roots(
        sources=(str(inside),), outputs=(str(out),)
    )
    assert file.of_token(token_of("two")).roots.outputs == (str(out / "x"),)
    assert file.of_token(token_of("none")).roots == Roots(sources=(), outputs=())


def test_roots_never_widen_those_of_the_server(tmp_path, path, opened):
    (tmp_path / "link").symlink_to("/")
    for outside in (tmp_path.parent, tmp_path / "team" / ".." / "..", tmp_path / "link"):
        tokens_on_disk.write(path, entry("a", sources=[outside]))
        assert reason_of(opened) == "TOKEN_FILE_INVALID"
    tokens_on_disk.write(path, entry("a", outputs=[tmp_path]))
    assert reason_of(opened) == "TOKEN_FILE_INVALID"


def test_a_root_that_becomes_a_link_leads_nowhere_else(tmp_path, path, opened):
    own = tmp_path / "own"
    own.mkdir()
    tokens_on_disk.write(path, entry("a", sources=[own]))
    file = opened()
    own.rmdir()
    own.symlink_to(tmp_path)
    roots = file.of_token(token_of("a")).roots
    assert roots.sources == (str(own),)
    (tmp_path / "secret").mkdir()
    assert reason_of(roots.source, str(own / "secret")) == "PATH_OUTSIDE_ROOTS"


def test_a_slip_keeps_what_was_and_is_logged(path, opened):
    tokens_on_disk.write(path, entry("a"))
    file = opened()
    path.write_text("[[token")
    assert file.of_token(token_of("a"))
    assert opened.log == ["tokens.rejected"]
    path.chmod(0o644)
    assert file.of_token(token_of("a"))
    path.unlink()
    assert file.of_token(token_of("a"))
    assert file.of_token(token_of("a"))
    assert opened.log == ["tokens.rejected"] * 3
    tokens_on_disk.write(path, entry("b"))
    assert file.of_token(token_of("b"))
    assert reason_of(file.of_token, token_of("a")) == "TOKEN_INVALID"
    assert opened.log[3:] == ["tokens.read"]


async def test_a_change_counts_at_once(tmp_path, path):
    tokens_on_disk.write(path, entry("a"))
    async with running(
        tmp_path, planner=ScriptedPlanner(), jobs=ScriptedJobs(), tokens=str(path)
    ) as server:
        stub = v1.JobServiceStub(server.channel)
        await stub.ListJobs(v1.ListJobsRequest(), metadata=bearing("a"))
        tokens_on_disk.write(path, entry("other"))
        refusal = await refused(stub.ListJobs(v1.ListJobsRequest(), metadata=bearing("a")))
        assert refusal.reason == "TOKEN_INVALID"
        await stub.ListJobs(v1.ListJobsRequest(), metadata=bearing("other"))
        assert server.events("tokens.read")[-1]["entries"] == 1


def test_looking_takes_no_time(path, opened):
    tokens_on_disk.write(path, *(entry(f"n{number}") for number in range(100)))
    file = opened()
    start = time.perf_counter()
    for _ in range(100):
        file.of_token(token_of("n99"))
    assert time.perf_counter() - start < 0.5
