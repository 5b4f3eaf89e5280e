"""A file or folder inspected the way that a call does it, up to the answer's bytes."""

from __future__ import annotations

from pathlib import Path

import msgspec
from tests import hosts
from tests.fuzz.bounds import check_refusal
from tests.fuzz.target import folder

from quantd import v1
from quantd_server.api.translation import to_message
from quantd_server.engine.specification import QuantizationSpec
from quantd_server.errors import QuantdError
from quantd_server.methods import registry  # noqa: F401 - planning imports it late
from quantd_server.methods.configs import MethodConfig
from quantd_server.planning.inspection import inspect
from quantd_server.planning.planner import plan
from quantd_server.planning.report import InspectionReport, PlanReport
from quantd_server.planning.roots import Roots

HOST = hosts.H100
PAGE_SIZE = 100
CONTEXT_LENGTH = 4096


def check_inspection(path: Path) -> None:
    """Raises unless ``path`` is inspected or refused."""
    try:
        report = inspect(
            str(path), _roots(), HOST, context_length=CONTEXT_LENGTH, offset=0, page_size=PAGE_SIZE
        )
    except QuantdError as error:
        check_refusal(error)
        return
    read = msgspec.json.decode(msgspec.json.encode(report), type=InspectionReport)
    to_message(read, v1.InspectCheckpointResponse).SerializeToString()


def check_plan(path: Path, method: MethodConfig) -> None:
    """Raises unless quantizing ``path`` is planned or refused."""
    spec = QuantizationSpec(source_uri=str(path), method=method)
    try:
        report = plan(spec, _roots(), HOST, offset=0, page_size=PAGE_SIZE)
    except QuantdError as error:
        check_refusal(error)
        return
    read = msgspec.json.decode(msgspec.json.encode(report), type=PlanReport)
    to_message(read, v1.PlanQuantizationResponse).SerializeToString()


def _roots() -> Roots:
    return Roots.of((str(folder()),), (str(folder()),))
