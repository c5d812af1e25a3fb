"""What can be wrong with the identity in a request.

    IdentityError               `code`, stable, for the log and for failInfoText
    ├── NoIdentity              nothing where the profile looks
    ├── UnreadableIdentity      subject or subjectAltName is not the ASN.1 it should be
    ├── InvalidDeviceID         a text breaks the grammar of its kind
    └── ConflictingIdentity     two places name different devices

Texts name the place and the value at fault; they are for the log, a peer is told the code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from scep_ra.errors import ScepRaError

if TYPE_CHECKING:  # the claims are built from values that raise these errors
    from scep_ra.identity.extract import IdentityClaim


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


class ConflictingIdentity(IdentityError):
    """Two claims of strong sources name different devices; both are in `claims`."""

    code = "identity_conflict"

    def __init__(self, first: IdentityClaim, second: IdentityClaim) -> None:
        self.claims = (first, second)
        super().__init__(f"{first.source} says {first.device_id}, {second.source} says {second.device_id}")
