"""Access."""

from __future__ import annotations

from quantd_server.reasons.entry import Area, Reason

AREA = Area(
    title="Access",
    about="Who may call. Those with FAILED_PRECONDITION are what `quantd serve` does not start "
    "with: it prints them and ends with exit code 2.",
    reasons={
        "CERTIFICATE_UNKNOWN": Reason(
            meaning="The client certificate is genuine, and the server has no entry for its name.",
            action="Ask the operator for a `[[certificate]]` entry, or send a token.",
        ),
        "CREDENTIALS_CHANGED": Reason(
            meaning="While a stream was open, the role or the folders of its caller were changed.",
            action="Call again: the new rights decide; a watch goes on after the last sequence.",
        ),
        "CREDENTIALS_EXPIRED": Reason(
            meaning="The token, or the entry of the certificate, has expired.",
            action="Ask the operator for a new one.",
        ),
        "CREDENTIALS_MISSING": Reason(
            meaning="The call has no token, and the connection no client certificate with a name.",
            action="Send `authorization: Bearer TOKEN` with every call; only health needs none.",
        ),
        "EXPOSED_WITHOUT_CREDENTIALS": Reason(
            meaning="An address can be reached from other hosts, and calls need no credentials.",
            action="Set `--tokens` or `--client-ca`, listen on this host alone, or allow it with "
            "`--insecure`.",
        ),
        "EXPOSED_WITHOUT_ENCRYPTION": Reason(
            meaning="An address can be reached from other hosts, and tokens would cross the "
            "network in clear.",
            action="Set `--tls-certificate` and `--tls-key`, listen on this host alone, or allow "
            "it with `--insecure`.",
        ),
        "JOB_OF_ANOTHER": Reason(
            meaning="The job was made by another caller, and only an admin may end those.",
            action="Leave it to its owner or to an admin.",
        ),
        "ROLE_TOO_SMALL": Reason(
            meaning="The caller's role does not allow the method.",
            action="Ask the operator for a token of the role that the message names.",
        ),
        "SECRET_FILE_EXPOSED": Reason(
            meaning="Other users can read or change the file of `--tokens` or `--tls-key`.",
            action="Make the server's user its owner, and `chmod 600` it.",
        ),
        "SECRET_FILE_UNREADABLE": Reason(
            meaning="The file of `--tokens` or of an option of TLS cannot be read.",
            action="Name a regular file that the server's user may read.",
        ),
        "TLS_FILE_INVALID": Reason(
            meaning="The files of the TLS options are no PEM certificates, or the key is that of "
            "another certificate, or has a password.",
            action="Write the certificate chain, the server's first, and its key without password.",
        ),
        "TLS_OPTIONS_INCOMPLETE": Reason(
            meaning="Of the options for TLS some are set, and others that they need are not.",
            action="Set both `--tls-certificate` and `--tls-key`.",
        ),
        "TOKEN_FILE_INVALID": Reason(
            meaning="The file of `--tokens` is not understood, or gives somebody folders that the "
            "server does not have.",
            action="Correct what the message names; `quantd token new` prints entries.",
        ),
        "TOKEN_INVALID": Reason(
            meaning="The authorization header holds no token of this server.",
            action="Send `authorization: Bearer TOKEN` once, with a token that is in the server's "
            "file.",
        ),
        "TOO_MANY_CALLS": Reason(
            meaning="The caller calls more often than `--max-calls-per-second` allows, or a host "
            "has too many calls for health at once.",
            action="Wait as RetryInfo says; watch a job instead of asking for it again and again.",
        ),
    },
)
