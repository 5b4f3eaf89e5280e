"""Follows a job to its end, with progress, findings and Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from rich.markup import escape

import quantd
from quantd import v1
from quantd_server.cli.exit_codes import INTERRUPTED, JOB_FAILED, CommandEndedError
from quantd_server.cli.findings import print_findings
from quantd_server.cli.printing import as_dict, messages, print_json, results
from quantd_server.cli.progress import display
from quantd_server.cli.tables import print_result


def follow(stream: quantd.JobStream, *, as_json: bool, cancel_on_interrupt: bool = True) -> None:
    """Shows a job until it ends.

    Args:
        stream: Its events.
        as_json: Whether events are printed as JSON lines instead.
        cancel_on_interrupt: Whether the first Ctrl-C asks the server to cancel the job; it only
            leaves otherwise.

    Raises:
        CommandEndedError: The job failed or was cancelled.
        KeyboardInterrupt: Ctrl-C, the second one if the first one cancels.
    """
    with _cancelling(stream) if cancel_on_interrupt else contextlib.nullcontext():
        if as_json:
            for event in stream:
                print_json(as_dict(event))
        else:
            _show(stream)
    _conclude(stream, as_json=as_json)


def _show(stream: quantd.JobStream) -> None:
    console = messages()
    print_findings(_warnings(stream.job), console)
    with display(console) as shown:
        for event in stream:
            if event.WhichOneof("event") == "warning":
                print_findings([event.warning], console)
            shown.show(stream.job, event)


def _warnings(job: v1.Job) -> list[v1.Finding]:
    return [finding for finding in job.findings if finding.severity == v1.Severity.SEVERITY_WARNING]


def _conclude(stream: quantd.JobStream, *, as_json: bool) -> None:
    try:
        result = stream.result()
    except quantd.JobCancelled as error:
        code, message = INTERRUPTED, str(error)
    except quantd.JobFailed as error:
        code, message = JOB_FAILED, str(error)
    else:
        if not as_json:
            print_result(result, results())
        return
    if not as_json:
        messages().print(f"quantd: {escape(stream.name)} {escape(message)}", soft_wrap=True)
    raise CommandEndedError(code)


@contextlib.contextmanager
def _cancelling(stream: quantd.JobStream) -> Iterator[None]:
    """Makes the first Ctrl-C cancel the job and the second one leave."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread
        return

    def cancel() -> None:
        try:
            stream.cancel("interrupted at the command line")
        except quantd.QuantdError as error:
            messages().print(f"quantd: cannot cancel: {escape(str(error))}")

    def on_interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        signal.signal(signal.SIGINT, signal.default_int_handler)
        messages().print("quantd: cancelling the job; press Ctrl-C again to leave at once")
        # Not here: a handler that calls the server would interrupt the read it waits in.
        threading.Thread(target=cancel, name="cancel-job", daemon=True).start()

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
