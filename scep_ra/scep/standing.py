"""Who signed a PKIMessage: a key of its own making, a certificate of ours, an IDevID, or an RA for somebody else.

Decided by certificates and signatures alone (RFC 8894 2.3, 3.1). Whether the certificate is revoked, may be renewed, or
entitles to anything is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Final

from scep_ra.pki.certificates import Certificate
from scep_ra.pki.trust import TrustStore, Untrusted, check_end_entity, find_path
from scep_ra.pki.validation import is_issued_by
from scep_ra.scep.errors import InvalidRequest
from scep_ra.scep.message import PKIMessage
from scep_ra.scep.terms import MessageType

# --- standings -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfMade:
    """The certificate was made for the occasion, or by somebody unknown: it proves nothing but its key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedByUs:
    """One of our CAs signed the certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByManufacturer:
    """The certificate leads to an anchor of this trust store: an IDevID (802.1AR)."""

    store: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OnBehalf:
    """This registration authority signed, for a device that it has looked at."""

    ra: str


Standing = SelfMade | IssuedByUs | ByManufacturer | OnBehalf


# --- whom to trust -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationAuthority:
    """An RA that may ask on behalf of devices: certificates known octet by octet, and those that `issuers` certify."""

    name: str
    pinned: tuple[Certificate, ...] = ()
    issuers: TrustStore | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerTrust:
    """Who besides our own CAs can vouch for a signer; nobody unless configured."""

    manufacturers: Sequence[TrustStore] = ()
    registration_authorities: Sequence[RegistrationAuthority] = ()


NOBODY: Final = SignerTrust()


# --- judging -------------------------------------------------------------------------------------------------------

# What a signer's certificate claims by its names, and the check that raises Untrusted unless it is true.
_Claim = tuple[Standing, Callable[[], object]]


def find_standing(
    message: PKIMessage, ca_certificates: Sequence[Certificate], trust: SignerTrust, now: datetime
) -> Standing:
    """Return who signed a message whose signature has been verified; raise InvalidRequest for false claims.

    A certificate that names a trusted issuer and does not lead to it is refused, not taken for a self-made one: nobody
    makes those by mistake.
    """
    faults: list[str] = []
    for standing, check in _claims(message, ca_certificates, trust, now):
        try:
            check()
        except Untrusted as fault:
            faults.append(str(fault))
        else:
            return standing
    if faults:
        raise InvalidRequest("; ".join(faults))
    return SelfMade()


def _claims(
    message: PKIMessage, ca_certificates: Sequence[Certificate], trust: SignerTrust, now: datetime
) -> Iterable[_Claim]:
    """Return what is claimed, what counts first in front.

    Our own CA may have certified an RA: what that asks for is for others, unless it is a successor to its certificate.
    """
    ours = _claims_on_us(message.signer, ca_certificates)
    if not trust.manufacturers and not trust.registration_authorities:
        return ours
    enclosed = tuple(message.signed_data.readable_certificates())
    vouched = _claims_on_ras(message.signer, enclosed, trust, now)
    is_renewal = message.message_type is MessageType.RENEWAL_REQ
    first, second = (ours, vouched) if is_renewal else (vouched, ours)
    return chain(first, second, _claims_on_manufacturers(message.signer, enclosed, trust, now))


def _claims_on_us(signer: Certificate, ca_certificates: Sequence[Certificate]) -> Iterator[_Claim]:
    issuers = [ca for ca in ca_certificates if ca.subject == signer.issuer]
    if issuers:
        yield IssuedByUs(), partial(_check_ours, signer, issuers)


def _check_ours(signer: Certificate, issuers: Sequence[Certificate]) -> None:
    if not any(is_issued_by(signer, ca) for ca in issuers):
        raise Untrusted("the signer's certificate names our CA as issuer and is not signed by it")


def _claims_on_ras(
    signer: Certificate, enclosed: Sequence[Certificate], trust: SignerTrust, now: datetime
) -> Iterator[_Claim]:
    for ra in trust.registration_authorities:
        if signer in ra.pinned:
            yield OnBehalf(ra=ra.name), partial(check_end_entity, signer, now)
        if ra.issuers is not None and ra.issuers.is_claimed_by(signer, enclosed):
            yield OnBehalf(ra=ra.name), partial(find_path, signer, enclosed, ra.issuers, now)


def _claims_on_manufacturers(
    signer: Certificate, enclosed: Sequence[Certificate], trust: SignerTrust, now: datetime
) -> Iterator[_Claim]:
    for store in trust.manufacturers:
        if store.is_claimed_by(signer, enclosed):
            yield ByManufacturer(store=store.name), partial(find_path, signer, enclosed, store, now)
