"""The request."""

from __future__ import annotations

from quantd_server.reasons.entry import Area, Reason

AREA = Area(
    title="The request",
    about="What is wrong with a request whatever the checkpoint and the host.",
    reasons={
        "METHOD_NOT_FOUND": Reason(
            meaning="The server has no such RPC method.",
            action="List its services by reflection; use a newer server, or a client generated "
            "from its spec.",
        ),
        "PAGE_TOKEN_INVALID": Reason(
            meaning="The page token is not from an answer to this very request.",
            action="Repeat the request unchanged with the `next_page_token` of its last answer, "
            "or start without one.",
        ),
        "PATH_OUTSIDE_ROOTS": Reason(
            meaning="The URI names a path that is not below a folder that the operator allowed.",
            action="Name a path below one of the roots, or have the operator allow another one.",
        ),
        "PATTERN_INVALID": Reason(
            meaning="A pattern is no regular expression that RE2 understands.",
            action="Correct the pattern; RE2 has no look-around and no back-references.",
        ),
        "PATTERN_UNMATCHED": Reason(
            meaning="A pattern, or the name of a module, is found in no name that is left for it.",
            action="Correct it after the names in the plan, or leave it out.",
        ),
        "PLANNING_FAILED": Reason(
            meaning="Reading headers or a configuration took more time or memory than the server "
            "allows.",
            action="Check that the source is not damaged; send less where a text is too large.",
        ),
        "REQUEST_ID_REUSED": Reason(
            meaning="`request_id` belongs to a job that was made by another request.",
            action="Use a new UUID for a new request; send exactly the same one to find its job "
            "again.",
        ),
        "REQUEST_MISSING": Reason(
            meaning="The call ended without a request message.",
            action="Send one message; an empty one is a message too.",
        ),
        "REQUEST_NOT_DECODABLE": Reason(
            meaning="The bytes are no message of the type that the method takes.",
            action="Generate the client from the spec of the server, and send text as UTF-8.",
        ),
        "RULE_NOT_EVALUABLE": Reason(
            meaning="A rule of the spec cannot be evaluated for the values of this request.",
            action="Correct the values that the message names.",
        ),
        "UNKNOWN_FIELDS": Reason(
            meaning="There is a field that this version of the server does not know, in a message "
            "or in a `quantization_config`.",
            action="Correct its name or leave it out, or use a newer server: no option is ignored "
            "in silence.",
        ),
        "URI_UNSUPPORTED": Reason(
            meaning="The URI is neither a `file:` URI nor an absolute path of the server.",
            action="Write file:///path or /path.",
        ),
    },
)
