"""Entry of a private server's process: the command line, tied to the life of its parent.

The first argument is the server's folder; the others are the command. The parent holds the other
end of our standard input and never writes. However it dies, that end is closed: then we remove the
folder, which it could not, and end as if asked to by SIGTERM.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading

from quantd_server.cli import main

STANDARD_INPUT = 0


def _end_with_parent(folder: str) -> None:
    # Not through sys.stdin: its lock, held while this waits, would be asked for at exit.
    while os.read(STANDARD_INPUT, 1):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(
        target=_end_with_parent, args=(sys.argv.pop(1),), name="end-with-parent", daemon=True
    ).start()
    main()
