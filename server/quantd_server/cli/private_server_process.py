"""Entry of a private server's process: the command line, tied to the life of its parent.

The parent holds the other end of our standard input and never writes. However it dies, that end is
closed, and we end as if asked to by SIGTERM.
"""

from __future__ import annotations

import os
import signal
import threading

from quantd_server.cli import main

STANDARD_INPUT = 0


def _end_with_parent() -> None:
    # Not through sys.stdin: its lock, held while this waits, would be asked for at exit.
    while os.read(STANDARD_INPUT, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    main()
