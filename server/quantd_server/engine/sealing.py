"""What can be written only when every weight has been seen: parts of variable length.

See ``checkpoint.safetensors_layout``: files keep their planned sizes.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from quantd_server.checkpoint.output import Output
from quantd_server.checkpoint.safetensors_layout import INDEX_FILE, seal, seal_index
from quantd_server.methods.base import WorkPlan


def write_variable_parts(
    work: WorkPlan, parts: Mapping[str, Mapping[str, bytes]], output: Output
) -> WorkPlan:
    """Write the parts of variable length, given by file and name, and the headers before them.

    Returns the work plan with the shard index as it is now true.
    """
    for file in work.files:
        contents = parts.get(file.name)
        if not contents:
            continue
        lengths = {name: len(data) for name, data in contents.items()}
        header, places = seal(file.header, lengths)
        output.write_at(file.name, 0, header)
        for name, data in contents.items():
            output.write_at(file.name, places[name], data)
    if INDEX_FILE not in work.texts:
        return work
    planned = sum(part.nbytes for task in work.tasks for part in task.parts if part.variable_length)
    written = sum(len(data) for contents in parts.values() for data in contents.values())
    index = seal_index(work.texts[INDEX_FILE], planned - written)
    return msgspec.structs.replace(work, texts=work.texts | {INDEX_FILE: index})
