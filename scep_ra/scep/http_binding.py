"""RFC 8894 section 4: how a SCEP call looks in HTTP, in both directions; no sockets.

The query string is taken apart here and not by a web framework: form decoding turns the `+` that several clients
leave unescaped into a blank, and re-quoting hides what was sent.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from scep_ra.scep.errors import MalformedMessage, MessageTooLarge, MethodNotAllowed, UnknownOperation
from scep_ra.scep.terms import PKI_MESSAGE_TYPE, Operation

_OPERATIONS: Final = {str(operation).lower(): operation for operation in Operation}
_ESCAPE_LEFT: Final = re.compile(rb"%[0-9A-Fa-f]{2}")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]*")
_PEM: Final = re.compile(rb"\s*-----BEGIN [A-Z0-9 ]+-----(.*?)-----END [A-Z0-9 ]+-----\s*", re.DOTALL)
_SEQUENCE: Final = 0x30
# mail-safe base64 grows by 4/3, then every octet may have become three by escaping, twice.
_MAX_EXPANSION: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ScepCall:
    """One operation with its message: DER for PKIOperation, the CA identifier's octets for the others."""

    operation: Operation
    message: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScepReply:
    """An answer for the HTTP layer to send in one piece, without adding any parameter to the content type."""

    content_type: str
    body: bytes
    status: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPRequest:
    """What a client has to send."""

    method: str
    url: str
    body: bytes | None = None
    content_type: str | None = None


def parse_call(method: str, raw_target: str, body: bytes, *, max_message_bytes: int) -> ScepCall:
    """Read a call from the request line and body; raise a TransportError that carries the HTTP status.

    `raw_target` is the request target as received. GET and HEAD are alike; a POST without operation is a PKIOperation
    because it can be nothing else (RFC 8894 4.3).
    """
    parameters = _query_parameters(raw_target)
    operation = _operation(parameters, default=Operation.PKI_OPERATION if method == "POST" else None)
    if method == "POST":
        if operation is not Operation.PKI_OPERATION:
            raise MethodNotAllowed(f"{operation} is a GET")
        return ScepCall(operation=operation, message=_decode_body(body, max_message_bytes))
    if method not in ("GET", "HEAD"):
        raise MethodNotAllowed(f"{method} is not part of SCEP")
    messages = parameters.get("message", [])
    if operation is not Operation.PKI_OPERATION:
        # The CA identifier is whatever the client calls us; unknown ones get the same CA (certmonger sends 0, 1, ...).
        return ScepCall(operation=operation, message=messages[0] if messages else b"")
    if len(messages) != 1:
        raise MalformedMessage(f"PKIOperation with {len(messages)} messages")
    return ScepCall(operation=operation, message=decode_get_message(messages[0], max_message_bytes))


def _query_parameters(raw_target: str) -> dict[str, list[bytes]]:
    """Split the raw query: first `?`, then `&`, then the first `=`; keys without regard to case, values raw."""
    query = raw_target.partition("?")[2].partition("#")[0]
    parameters: dict[str, list[bytes]] = {}
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        parameters.setdefault(key.lower(), []).append(value.encode("utf-8", "surrogateescape"))
    return parameters


def _operation(parameters: dict[str, list[bytes]], default: Operation | None) -> Operation:
    values = parameters.get("operation", [])
    if not values and default is not None:
        return default
    name = unquote_to_bytes(values[0]).decode("ascii", "replace").strip().lower() if len(values) == 1 else ""
    operation = _OPERATIONS.get(name)
    if operation is None:
        raise UnknownOperation("no SCEP operation in the query")
    return operation


def decode_get_message(raw: bytes, max_message_bytes: int) -> bytes:
    """Decode the `message` of a GET PKIOperation (RFC 8894 4.1 as clients read it); raise a TransportError.

    Tolerates raw `+ / =`, blanks for `+`, line breaks (sscep, IOS, strongSwan), the URL-safe alphabet (scepclient
    2.1), missing padding, and one escaping too many.
    """
    if len(raw) > max_message_bytes * _MAX_EXPANSION:
        raise MessageTooLarge(f"message parameter of {len(raw)} octets")
    text = unquote_to_bytes(raw)
    if _ESCAPE_LEFT.search(text):
        text = unquote_to_bytes(text)
    text = text.translate(bytes.maketrans(b" -_", b"++/"), delete=b"\r\n\t")
    return _decode_base64(text, max_message_bytes)


def _decode_base64(text: bytes, max_message_bytes: int) -> bytes:
    text = text.rstrip(b"=")
    if not text or not _BASE64.fullmatch(text):
        raise MalformedMessage("message is not base64")
    try:
        message = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise MalformedMessage("message is not base64: its length is impossible") from None
    return _check_message(message, max_message_bytes)


def _decode_body(body: bytes, max_message_bytes: int) -> bytes:
    """Take the body as it is; PEM or bare base64 only when it cannot be DER."""
    if body and body[0] != _SEQUENCE:
        pem = _PEM.fullmatch(body)
        text = pem[1] if pem else body
        return _decode_base64(b"".join(text.split()), max_message_bytes)
    return _check_message(body, max_message_bytes)


def _check_message(message: bytes, max_message_bytes: int) -> bytes:
    if len(message) > max_message_bytes:
        raise MessageTooLarge(f"message of {len(message)} octets")
    if not message or message[0] != _SEQUENCE:
        raise MalformedMessage("message is not an ASN.1 SEQUENCE")
    return message


def encode_call(call: ScepCall, base_url: str, *, post: bool) -> HTTPRequest:
    """Return the HTTP request of a call: POST where the server announced it, GET otherwise (RFC 8894 4.1)."""
    url = f"{base_url}{'&' if '?' in base_url else '?'}operation={call.operation}"
    if call.operation is not Operation.PKI_OPERATION:
        message = f"&message={quote(call.message, safe='')}" if call.message else ""
        return HTTPRequest(method="GET", url=url + message)
    if post:
        return HTTPRequest(method="POST", url=url, body=call.message, content_type=PKI_MESSAGE_TYPE)
    return HTTPRequest(method="GET", url=f"{url}&message={quote(base64.b64encode(call.message), safe='')}")
