"""`python -m quantd_server` is the command `quantd`."""

from quantd_server.cli import main

if __name__ == "__main__":
    main()
