"""What can be wrong with the identity in a request.

    IdentityError               `code`, stable, for the log
    ├── NoIdentity              nothing where the profile looks
    ├── UnreadableIdentity      subject or subjectAltName is not the ASN.1 it should be
    ├── InvalidDeviceID         a text breaks the grammar of its kind
    └── ConflictingIdentity     two places name different devices (in `extract`, beside the claims that it carries)

Texts name the place and the value at fault; they are for the log; a peer learns only that no device is named.
"""

from __future__ import annotations

from typing import ClassVar

from scep_ra.errors import ScepRaError


class IdentityError(ScepRaError):
    """Base of everything that keeps a request from naming one device."""

    code: ClassVar[str] = "identity_error"


class NoIdentity(IdentityError):
    """No rule of the profile found an identifier."""

    code = "identity_missing"


class UnreadableIdentity(IdentityError):
    """A name in the request cannot be decoded."""

    code = "identity_unreadable"


class InvalidDeviceID(IdentityError):
    """The text breaks the grammar of its kind; the message says which rule."""

    code = "identity_invalid"
