"""Jobs."""

from __future__ import annotations

from quantd_server.reasons.entry import Area, Reason

AREA = Area(
    title="Jobs",
    about="What ends a job, or stands against what is asked about one.",
    reasons={
        "BLOCKS_SOLVED_AGAIN": Reason(
            meaning="A job that goes on after its worker was ended solves its decoder blocks "
            "again from the first one: their bits depend on something that is different now.",
            action="Nothing. A server that is started again with the same `--threads`, on the "
            "same machine, goes on where it was.",
        ),
        "CANCELLED": Reason(
            meaning="A client cancelled the job.",
            action="Nothing; quantize again with a new `request_id` if it is needed after all.",
        ),
        "EVALUATION_NOT_FINITE": Reason(
            meaning="The evaluation measured nothing: logits of the model before or after "
            "quantization are not finite.",
            action="Check the checkpoint for weights that are not finite, or too large.",
        ),
        "EVALUATION_TOO_SHORT": Reason(
            meaning="No sequence of the evaluation's data has two tokens, so that nothing was "
            "measured; the result is as good as without an evaluation.",
            action="Give longer texts to measure on.",
        ),
        "JOB_NOT_FINISHED": Reason(
            meaning="Only finished jobs can be deleted.",
            action="Cancel the job first, or wait for its end.",
        ),
        "JOB_NOT_FOUND": Reason(
            meaning="There is no job of that name; finished ones are kept for a limited time, and "
            "beyond the end of the server only where it has a state folder.",
            action="Take the name from `ListJobs`.",
        ),
        "JOB_RETRIED": Reason(
            meaning="The server was killed under the job, or its worker was; it is begun again.",
            action="Nothing. If it happens again, have the operator look up the job in the "
            "server's log.",
        ),
        "KILLED_FOR_MEMORY": Reason(
            meaning="The kernel killed the worker because memory ran out.",
            action="Compare `Plan.peak_memory_bytes` with the memory that is free; use fewer "
            "threads, run fewer jobs at once, or raise the memory limit of the server's control "
            "group.",
        ),
        "OUT_OF_MEMORY": Reason(
            meaning="The worker could not allocate memory.",
            action="Have the operator give it fewer threads, or free memory, then quantize again.",
        ),
        "QUEUE_FULL": Reason(
            meaning="As many jobs are waiting as the server takes.",
            action="Try again after `RetryInfo.retry_delay`.",
        ),
        "SEQUENCE_OUT_OF_RANGE": Reason(
            meaning="The job has no event of that number yet.",
            action="Watch from the number in the remedy, at most.",
        ),
        "SERVER_STOPPED": Reason(
            meaning="The server stopped before the job was done.",
            action="Quantize again when it is back.",
        ),
        "SHUTTING_DOWN": Reason(
            meaning="The server is stopping and takes no more jobs.",
            action="Try again with backoff.",
        ),
        "TOO_MANY_ATTEMPTS": Reason(
            meaning="As many workers in a row as may be got no further with the job than those "
            "before, or there were a hundred of them, and the server ended under the last one.",
            action="Find out what ended the server: lack of memory, for one. Then quantize again.",
        ),
        "WORKER_DIED": Reason(
            meaning="The worker ended before the job was done.",
            action="Look up the job in the server's log.",
        ),
        "WORKER_KILLED": Reason(
            meaning="The worker was killed, most likely because memory ran out.",
            action="Compare `Plan.peak_memory_bytes` with the memory that is free; use fewer "
            "threads, or free memory.",
        ),
    },
)
