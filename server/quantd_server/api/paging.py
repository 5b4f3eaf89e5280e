"""Page tokens: where the next page starts, and of which request."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from typing import Any

from google.protobuf.message import Message

from quantd_server.errors import QuantdError

DIGEST_BYTES = 16
_LAYOUT = struct.Struct(f">Q{DIGEST_BYTES}s")


def token_of(request: Message, position: int) -> str:
    """The token that continues ``request`` at ``position`` (more than 0)."""
    packed = _LAYOUT.pack(position, _digest(request))
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def position_of(request: Any) -> int:
    """Where the page that ``request`` asks for starts; 0 for the first one.

    Raises QuantdError PAGE_TOKEN_INVALID when the token belongs to a request with other values.
    """
    token: str = request.page_token
    if not token:
        return 0
    try:
        packed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        position, digest = _LAYOUT.unpack(packed)
    except (ValueError, binascii.Error, struct.error):
        raise _invalid() from None
    if digest != _digest(request) or not 0 < position < 1 << 63:
        raise _invalid()
    return int(position)


def _digest(request: Message) -> bytes:
    """Digest of what has to stay the same from page to page: all but page size and token."""
    same = type(request)()
    same.CopyFrom(request)
    same.ClearField("page_token")
    same.ClearField("page_size")
    content = same.SerializeToString(deterministic=True)
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def _invalid() -> QuantdError:
    return QuantdError(
        reason="PAGE_TOKEN_INVALID",
        field="page_token",
        message="page_token is not from an answer to this request",
        remedy="repeat the request with the next_page_token of the answer before and everything "
        "else unchanged, or start again without one",
    )
