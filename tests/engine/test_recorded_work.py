"""How far a job's records say it is; tests/faults has it with real ones."""

from __future__ import annotations

import pytest

from quantd_server.engine.recorded_work import recorded_steps

BLOCK = b'{"blocks":%d,"tensors":[],"states":{"name":"states-1","shapes":[[1,2]]}}\n'
LAST = b'{"blocks":9,"tensors":[],"states":null}\n'


@pytest.mark.parametrize(
    ("tensors", "blocks", "steps"),
    [
        (None, None, 0),
        (b"digest\n", b'{"output":""}\n', 0),
        (b"digest\n{}\n{}\n", None, 2),
        (b"digest\n{}\n{", None, 1),  # the last words of one that was killed
        (b"digest\n{}\n", b"{}\n" + BLOCK % 3, 4),
        (None, b"{}\n" + BLOCK % 3 + BLOCK % 7, 7),
        (None, b"{}\n" + BLOCK % 3 + (BLOCK % 7)[:-1], 3),
        (None, b"{}\n" + BLOCK % 9 + LAST, 10),
        (b"digest\n{}\n", b"{}\nnonsense\n", 1),
    ],
)
def test_steps(tmp_path, tensors, blocks, steps):
    for name, content in (("tensors", tensors), ("blocks", blocks)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
    assert recorded_steps(tmp_path) == steps
