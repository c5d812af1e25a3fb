"""What can be wrong with a SCEP message, by what the peer may be told.

    ProtocolError
    ├── TransportError          nothing could be signed back: `http_status` tells what to answer
    │   ├── UnknownOperation 400, UnsupportedOperation 501, MethodNotAllowed 405
    │   └── MalformedMessage 400, MessageTooLarge 413
    └── RefusedMessage          a signed FAILURE can be sent: `fail_info`, `code`
        ├── IntegrityFailure badMessageCheck, AlgorithmNotAllowed badAlg
        └── InvalidRequest badRequest, TimeOutOfWindow badTime
    ReplyError                  client side: the server's answer cannot be trusted or read

The boundary is RFC 8894's own: until transactionID, senderNonce and signer are known no CertRep can be made.
"""

from __future__ import annotations

from typing import ClassVar

from scep_ra.errors import ScepRaError
from scep_ra.scep.terms import FailInfo


class ProtocolError(ScepRaError):
    """Base of everything a SCEP peer can do wrong; the text is for the log, never for the peer."""


class TransportError(ProtocolError):
    """No CertRep can be made; answer with this HTTP status."""

    http_status: ClassVar[int] = 400


class UnknownOperation(TransportError):
    """`operation` is absent or not one of RFC 8894's."""


class UnsupportedOperation(TransportError):
    """The operation exists and is not offered here (GetNextCACert without a rollover)."""

    http_status = 501


class MethodNotAllowed(TransportError):
    """The operation does not exist with this HTTP method."""

    http_status = 405


class MessageTooLarge(TransportError):
    """The message exceeds the configured limit."""

    http_status = 413


class MalformedMessage(TransportError):
    """Not base64, not CMS, or without transactionID, senderNonce or signer certificate."""


class RefusedMessage(ProtocolError):
    """A signed FAILURE goes back, with this failInfo and the public text of `code`."""

    fail_info: ClassVar[FailInfo] = FailInfo.BAD_REQUEST
    code: ClassVar[str] = "bad_request"


class IntegrityFailure(RefusedMessage):
    """Signature, envelope or proof of possession do not hold: one answer for every cause (SEC: no oracle)."""

    fail_info = FailInfo.BAD_MESSAGE_CHECK
    code = "integrity"


class AlgorithmNotAllowed(RefusedMessage):
    """Digest, cipher, key transport, key type or key size is unknown or switched off."""

    fail_info = FailInfo.BAD_ALG
    code = "algorithm"


class InvalidRequest(RefusedMessage):
    """Unknown messageType, unreadable inner request, or one that breaks a rule of the RFC."""


class TimeOutOfWindow(RefusedMessage):
    """signingTime is too far from now, where the profile cares."""

    fail_info = FailInfo.BAD_TIME
    code = "time"


class ReplyError(ProtocolError):
    """The answer of a SCEP server does not verify, does not match the request, or is not SCEP."""
