"""Who may have what: the policy in words, written against the RFC and the security requirements, not against the code.

Nothing of the product may be imported here, or a mistake would agree with itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Kind(Enum):
    """What the messageType says; UPDATE (18) stood in drafts only, UNKNOWN (99) nowhere."""

    PKCS_REQ = "19"
    RENEWAL_REQ = "17"
    UPDATE_REQ = "18"
    CERT_POLL = "20"
    GET_CERT = "21"
    GET_CRL = "22"
    UNKNOWN = "99"


class Signer(Enum):
    """Whose certificate signs; all of them name the device that the request names."""

    SELF_MADE = auto()  # over the key that is to be certified; all others ask for another key than their own
    OURS = auto()  # issued by the profile `OWN`
    EXPIRED = auto()
    REVOKED = auto()
    FOREIGN = auto()  # of a CA that nobody here knows
    SUDI = auto()  # of a manufacturer whom the profile OWN trusts
    TENANT = auto()  # of the same CA as OURS, issued under a third profile
    TRUSTED_RA = auto()  # the profile OWN lets it speak for devices
    IMPOSTOR = auto()  # of a foreign CA that bears our CA's name


class Challenge(Enum):
    """What stands in the request; all are, or were, of the profile OWN."""

    NONE = auto()
    WRONG = auto()
    USED = auto()
    EXPIRED = auto()
    OTHER_DEVICES = auto()
    RIGHT = auto()


class AAA(Enum):
    """What the AAA system says when it is asked."""

    YES = auto()
    NO = auto()
    ERROR = auto()
    TIMEOUT = auto()


class Profile(Enum):
    """Which profile is asked; OTHER has a CA of its own, and trusts nobody besides it."""

    OWN = "default"
    OTHER = "other"


class Proof(Enum):
    """What a profile asks of a stranger who enrolls for the first time."""

    CHALLENGE = auto()
    CERTIFICATE = auto()  # strangers are not enrolled
    ANONYMOUS = auto()  # nothing


class Approval(Enum):
    """Which requests an operator has to approve."""

    OFF = "off"
    FIRST = "first"
    ALWAYS = "always"


class Standing(Enum):
    """What an operator has said of a request that waits."""

    UNDECIDED = auto()
    APPROVED = auto()
    REJECTED = auto()


class Outcome(Enum):
    """What the requester gets."""

    ISSUED = "a new certificate"
    CERTIFICATE = "a certificate that was there"
    CRL = "the CRL"
    PENDING = "PENDING"
    BAD_REQUEST = "FAILURE badRequest"
    BAD_MESSAGE_CHECK = "FAILURE badMessageCheck"
    BAD_CERT_ID = "FAILURE badCertId"
    UNAVAILABLE = "HTTP 503"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One message in one situation. A poll asks for a first enrollment that was begun at OWN with this challenge."""

    kind: Kind
    signer: Signer
    challenge: Challenge
    aaa: AAA
    profile: Profile
    proof: Proof = Proof.CHALLENGE
    approval: Approval = Approval.OFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What has to come of a message."""

    outcome: Outcome
    asks_aaa: bool = False
    spends_challenge: bool = False

    @property
    def certificates(self) -> int:
        return int(self.outcome is Outcome.ISSUED)


REFUSED = Verdict(outcome=Outcome.BAD_REQUEST)


def verdict(cell: Cell) -> Verdict:
    """Say what the policy wants."""
    match cell.kind:
        case Kind.UPDATE_REQ | Kind.UNKNOWN:  # nobody is asked about what is not in the RFC
            return REFUSED
        case Kind.GET_CERT | Kind.GET_CRL:  # only good certificates of this very profile may look around
            looks = cell.signer is Signer.OURS and cell.profile is Profile.OWN
            found = Outcome.CERTIFICATE if cell.kind is Kind.GET_CERT else Outcome.CRL
            return Verdict(outcome=found) if looks else REFUSED
        case Kind.CERT_POLL:  # the key that began a transaction ends it, where it was begun
            began = cell.challenge is Challenge.RIGHT  # others were refused, so nothing waits
            same = cell.signer is Signer.SELF_MADE and cell.profile is Profile.OWN
            return answer_of_aaa(cell.aaa, waits=False, spends=False) if began and same else REFUSED
        case Kind.PKCS_REQ | Kind.RENEWAL_REQ:
            return request(cell)


def request(cell: Cell) -> Verdict:
    """Whoever asks for a certificate has to prove to be the device, and only then AAA is asked."""
    is_renewal = cell.kind is Kind.RENEWAL_REQ
    vouched = {Signer.OURS, Signer.SUDI, Signer.TRUSTED_RA}
    refused = {Signer.EXPIRED, Signer.REVOKED, Signer.TENANT, Signer.IMPOSTOR}
    waits = cell.approval is Approval.ALWAYS or (cell.approval is Approval.FIRST and cell.signer is not Signer.OURS)
    if cell.signer is Signer.SELF_MADE:
        is_right = cell.challenge is Challenge.RIGHT and cell.profile is Profile.OWN
        proven = cell.proof is Proof.ANONYMOUS or (cell.proof is Proof.CHALLENGE and is_right)
        if is_renewal or not proven:
            return REFUSED
        return answer_of_aaa(cell.aaa, waits=waits, spends=cell.proof is Proof.CHALLENGE)
    if cell.profile is Profile.OWN and cell.signer in vouched:  # a challenge is neither needed nor harmful, nor spent
        return answer_of_aaa(cell.aaa, waits=waits, spends=False)
    if is_renewal or (cell.profile is Profile.OWN and cell.signer in refused):
        return REFUSED
    # A stranger has to sign with the key of the request: this may be somebody else's, sent again.
    return Verdict(outcome=Outcome.BAD_MESSAGE_CHECK)


def answer_of_aaa(aaa: AAA, *, waits: bool, spends: bool) -> Verdict:
    """Only a yes is a yes; what is not granted, and does not wait, costs no challenge."""
    match aaa:
        case AAA.YES:
            outcome = Outcome.PENDING if waits else Outcome.ISSUED
            return Verdict(outcome=outcome, asks_aaa=True, spends_challenge=spends)
        case AAA.NO:
            return Verdict(outcome=Outcome.BAD_REQUEST, asks_aaa=True)
        case AAA.ERROR | AAA.TIMEOUT:
            return Verdict(outcome=Outcome.UNAVAILABLE, asks_aaa=True)


def collected(*, begun_by: Signer, polled_by: Signer, standing: Standing, aaa: AAA) -> Verdict:
    """Say what a poll finds: whose the request was, it is; an operator may stand before AAA's yes, never for it."""
    if begun_by is not polled_by or standing is Standing.REJECTED:
        return REFUSED
    return answer_of_aaa(aaa, waits=standing is Standing.UNDECIDED, spends=False)
