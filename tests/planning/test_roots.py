"""Which paths a request can reach."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantd_server.errors import QuantdError
from quantd_server.planning.roots import Roots


@pytest.fixture
def roots(tmp_path) -> Roots:
    for name in ("models", "outputs", "secret", "models-2"):
        (tmp_path / name).mkdir()
    (tmp_path / "models" / "tiny").mkdir()
    (tmp_path / "secret" / "tiny").mkdir()
    return Roots.of((str(tmp_path / "models"),), (str(tmp_path / "outputs"),))


def reason(call, *arguments) -> str:
    with pytest.raises(QuantdError) as caught:
        call(*arguments)
    return caught.value.reason


def test_the_three_ways_to_write_a_path(tmp_path, roots) -> None:
    model = tmp_path / "models" / "tiny"
    for uri in (str(model), f"file://{model}", f"file://localhost{model}", f"file:{model}"):
        assert roots.source(uri) == model


def test_percent_encoding_is_for_uris_only(tmp_path, roots) -> None:
    spaced = tmp_path / "models" / "a b%41"
    spaced.mkdir()
    assert roots.source(f"file://{quote(str(spaced))}") == spaced
    assert roots.source(str(spaced)) == spaced
    assert reason(roots.source, quote(str(spaced))) == "SOURCE_NOT_FOUND"


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "models/tiny",
        "./models",
        "hf:owner/name",
        "s3://bucket/key",
        "http://host/models/tiny",
        "file:",
        "file:models",
        "file://other-host/models",
        "file:///models?x=1",
        "file:///models#x",
        "file://[half/models",
        "/models/\0tiny",
        "file:///models/%00tiny",
    ],
)
def test_what_is_no_local_path(roots, uri) -> None:
    for call in (roots.source, roots.output):
        assert reason(call, uri) == "URI_UNSUPPORTED"


def test_a_root_name_that_begins_like_an_allowed_one(tmp_path, roots) -> None:
    assert reason(roots.source, str(tmp_path / "models-2")) == "PATH_OUTSIDE_ROOTS"


@pytest.mark.parametrize(
    "path", ["secret/tiny", "models/../secret/tiny", "models/tiny/../../secret", "", ".."]
)
def test_outside(tmp_path, roots, path) -> None:
    for uri in (
        f"{tmp_path}/{path}",
        f"file://{tmp_path}/{path}",
        f"file://{tmp_path}/{quote(path)}",
    ):
        assert reason(roots.source, uri) == "PATH_OUTSIDE_ROOTS"
        assert reason(roots.output, uri) == "PATH_OUTSIDE_ROOTS"
    encoded = f"file://{tmp_path}/models/%2e%2e/secret"
    assert reason(roots.source, encoded) == "PATH_OUTSIDE_ROOTS"


def test_links_are_followed_before_they_are_judged(tmp_path, roots) -> None:
    (tmp_path / "models" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "outputs" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "secret" / "in").symlink_to(tmp_path / "models" / "tiny")
    assert reason(roots.source, f"{tmp_path}/models/out/tiny") == "PATH_OUTSIDE_ROOTS"
    assert reason(roots.output, f"{tmp_path}/outputs/out/new") == "PATH_OUTSIDE_ROOTS"
    assert roots.source(f"{tmp_path}/secret/in") == tmp_path / "models" / "tiny"


def test_a_root_may_itself_be_a_link(tmp_path, roots) -> None:
    (tmp_path / "alias").symlink_to(tmp_path / "models")
    linked = Roots.of((str(tmp_path / "alias"),), ())
    assert linked.source(f"{tmp_path}/alias/tiny") == tmp_path / "models" / "tiny"
    assert linked.source(f"{tmp_path}/models/tiny") == tmp_path / "models" / "tiny"


def test_links_in_a_circle(tmp_path, roots) -> None:
    for name, target in (("a", "b"), ("b", "a")):
        (tmp_path / "models" / name).symlink_to(tmp_path / "models" / target)
    assert reason(roots.source, f"{tmp_path}/models/a/x") == "SOURCE_NOT_FOUND"


@pytest.mark.parametrize("name", ["nothing", "n" * 300, "n/" * 2500 + "n", "tiny/config.json/x"])
def test_nothing_there(tmp_path, roots, name) -> None:
    assert reason(roots.source, f"{tmp_path}/models/{name}") == "SOURCE_NOT_FOUND"


def test_answers_about_other_folders_do_not_tell_what_is_there(tmp_path, roots) -> None:
    answers = []
    for name in ("tiny", "nothing"):
        with pytest.raises(QuantdError) as caught:
            roots.source(f"{tmp_path}/secret/{name}")
        answers.append(caught.value.finding)
    assert answers[0] == answers[1]
    assert "secret" not in answers[0].message


def test_the_output_root_itself_is_no_output(tmp_path, roots) -> None:
    for uri in (f"{tmp_path}/outputs", f"{tmp_path}/outputs/", f"{tmp_path}/outputs/x/.."):
        assert reason(roots.output, uri) == "PATH_OUTSIDE_ROOTS"
    assert roots.output(f"{tmp_path}/outputs/new/") == tmp_path / "outputs" / "new"


def test_no_roots_allow_nothing(tmp_path) -> None:
    none = Roots.of((), ())
    assert reason(none.source, str(tmp_path)) == "PATH_OUTSIDE_ROOTS"
    assert reason(none.output, str(tmp_path)) == "PATH_OUTSIDE_ROOTS"


@given(
    st.lists(
        st.sampled_from(["..", ".", "", "a", "link", "%2e%2e", "%2F", "up"])
        | st.text(max_size=4, alphabet=st.characters(exclude_categories=("Cs",))),
        max_size=8,
    ),
    st.sampled_from(["", "file:", "file://", "file://localhost"]),
)
def test_no_path_leads_out(tmp_path_factory, parts, scheme) -> None:
    base = tmp_path_factory.getbasetemp() / "walk"
    if not base.exists():
        (base / "allowed" / "a").mkdir(parents=True)
        (base / "allowed" / "link").symlink_to(base)
        (base / "allowed" / "up").symlink_to("..")
    roots = Roots.of((str(base / "allowed"),), (str(base / "allowed"),))
    uri = f"{scheme}{base}/allowed/{'/'.join(parts)}"
    for call in (roots.source, roots.output):
        try:
            found = call(uri)
        except QuantdError:
            continue
        assert Path(os.path.realpath(found)).is_relative_to(base / "allowed")


def test_the_remedy_for_a_missing_file_does_not_speak_of_checkpoints(tmp_path):
    roots = Roots.of((str(tmp_path),), ())
    with pytest.raises(QuantdError) as missing:
        roots.source(str(tmp_path / "text"), "spec.calibration.file.uri")
    assert missing.value.finding.reason == "SOURCE_NOT_FOUND"
    assert missing.value.finding.remedy == "name a file that exists on the server"
