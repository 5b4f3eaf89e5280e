"""The command line `quantd`. Nothing heavy is imported before a command needs it."""


def main() -> None:
    """Runs the command line and exits with one of `exit_codes`."""
    from quantd_server.cli.application import application

    application()
