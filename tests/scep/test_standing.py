"""Claims about who signed: the server core tells an IDevID, an RA and a certificate of ours from what only looks so."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from scep_ra.identity.device_certificate import check_same_device, device_certificate_claims
from scep_ra.identity.errors import IdentityError
from scep_ra.identity.extract import choose_device_id, extract_claims
from scep_ra.pki import der, oids
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.names import parse_name
from scep_ra.pki.trust import TrustOptions, TrustStore, ValidityCheck
from scep_ra.scep.policy import AlgorithmPolicy
from scep_ra.scep.server import EnrollmentRequested, PollRequested, Refused, ScepServer, ServerRules
from scep_ra.scep.standing import (
    NOBODY,
    ByManufacturer,
    IssuedByUs,
    OnBehalf,
    RegistrationAuthority,
    SelfMade,
    SignerTrust,
)
from scep_ra.scep.terms import FailInfo
from tests.support.keys import PrivateKey, ec_key, rsa_key, spki
from tests.support.manufacturer import (
    DEVICE_KEY,
    DEVICE_USAGE,
    ENDED,
    KEY_ENCIPHERMENT,
    LIFETIME,
    ROOT,
    ROOT_KEY,
    SUB,
    SUB_KEY,
    SUB_NAME,
    hardware_module_name,
    key_usage,
    make_authority,
    make_idevid,
    make_store,
)
from tests.support.pki import NOW, make_ca, make_certificate, make_ra
from tests.support.scep_messages import Envelope, Message, Request, certificate, extension, stand_in
from tests.support.scep_server import enroll, make_server, receive, refuse

RA = make_ra().certificate
BAD_REQUEST = (FailInfo.BAD_REQUEST, "bad_request")
BAD_CHECK = (FailInfo.BAD_MESSAGE_CHECK, "integrity")
BAD_ALG = (FailInfo.BAD_ALG, "algorithm")
NEW_KEY = rsa_key("LDevID")
CMC_RA = extension(oids.EXTENDED_KEY_USAGE, der.sequence(der.oid(oids.CMC_RA)))


def acme(trust: SignerTrust | None = None, **options: Any) -> ScepServer:
    """Return a server that trusts the manufacturer."""
    return make_server(trust=trust or SignerTrust(manufacturers=[make_store(TrustOptions(**options))]))


def signed_by(
    signer: Certificate,
    key: PrivateKey = DEVICE_KEY,
    *,
    certified: PrivateKey = NEW_KEY,
    subject: str = "serialNumber=FTX1234ABCD,CN=router-7",
    **fields: Any,
) -> Message:
    """Return a PKCSReq without challenge for one key, signed by another."""
    request = Request(key=certified, subject=parse_name(subject), attributes=None)
    envelope = Envelope(content=request.encode(), recipient=RA)
    return Message(key=key, signer=signer, content=envelope.encode(), **fields)


def why(server: ScepServer, message: Message) -> str:
    """Return the reason that the log gets for a refusal."""
    event = receive(server, message)
    assert isinstance(event, Refused), event
    return str(event.error)


# --- manufacturers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["19", "17"])
def test_an_idevid_asks_for_a_certificate_over_another_key(number: str) -> None:
    """R-13: PKCSReq and RenewalReq alike (RFC 8894 2.3), without challenge; the device comes from the certificate."""
    event = enroll(acme(), signed_by(make_idevid(), message_type=number))
    assert event.reply_to.standing == ByManufacturer(store="acme")
    assert event.csr.spki == spki(NEW_KEY)
    assert str(choose_device_id(device_certificate_claims(event.reply_to.signer))) == "serial:FTX1234ABCD"


def test_an_idevid_may_ask_for_its_own_key() -> None:
    """Whether it gets a certificate over it is the profile's matter."""
    event = enroll(acme(), signed_by(make_idevid(), certified=DEVICE_KEY))
    assert event.reply_to.standing == ByManufacturer(store="acme")


def test_polls_of_an_idevid_have_the_same_standing() -> None:
    """Or a pending request would never be found again."""
    event = receive(acme(), signed_by(make_idevid(), message_type="20"))
    assert isinstance(event, PollRequested)
    assert event.reply_to.standing == ByManufacturer(store="acme")


def test_intermediates_may_come_with_the_message() -> None:
    """R-12: in any order, beside something that is no certificate."""
    server = acme(SignerTrust(manufacturers=[make_store(intermediates=())]))
    leaf = make_idevid()
    chain = (der.sequence(der.NULL), SUB.der, leaf.der)
    assert enroll(server, signed_by(leaf, certificates=chain)).reply_to.standing == ByManufacturer(store="acme")
    assert "leads to nobody trusted" in why(server, signed_by(leaf))


def test_without_a_trust_store_an_idevid_is_a_stranger() -> None:
    """R-14: a key that is not the CSR's gets the one answer of all strangers; its own key makes it a stand-in."""
    server = make_server()
    assert refuse(server, signed_by(make_idevid())) == BAD_CHECK
    assert refuse(server, signed_by(make_idevid(), message_type="17")) == BAD_REQUEST
    assert enroll(server, signed_by(make_idevid(), certified=DEVICE_KEY)).reply_to.standing == SelfMade()


def test_the_first_store_that_holds_counts() -> None:
    """Two stores may share a name: an old root and its successor."""
    old = TrustStore(name="old", anchors=(make_authority("old", SUB_NAME),))
    trust = SignerTrust(manufacturers=[old, make_store()])
    assert enroll(acme(trust), signed_by(make_idevid())).reply_to.standing == ByManufacturer(store="acme")


LOOKALIKE_KEY = rsa_key("look-alike")
NEGATIVE = {
    "look-alike CA of the same name": (
        make_idevid(issuer=(SUB_NAME, LOOKALIKE_KEY)),
        DEVICE_KEY,
        "is not signed by the key of",
    ),
    "leaf used as CA": (
        make_idevid(issuer=(make_idevid().subject, DEVICE_KEY), key=rsa_key("thief")),
        rsa_key("thief"),
        "is not a CA certificate",
    ),
    "expired": (make_idevid(validity=ENDED), DEVICE_KEY, "has expired"),
    "SHA-1": (make_idevid(digest="sha1"), DEVICE_KEY, "allow_sha1 is off"),
    "RSA-1024": (make_idevid(key=rsa_key("short", 1024)), rsa_key("short", 1024), "of 1024 bits"),
    "keyUsage": (make_idevid(extensions=(key_usage(KEY_ENCIPHERMENT),)), DEVICE_KEY, "digital signatures"),
    "the issuing CA itself": (SUB, SUB_KEY, "is a CA certificate"),
    "the root itself": (ROOT, ROOT_KEY, "is a CA certificate"),
    "self-signed in the name of the root": (
        certificate(rsa_key("thief"), subject=ROOT.subject, validity=LIFETIME),
        rsa_key("thief"),
        "is not signed by the key of",
    ),
}


@pytest.mark.parametrize("case", NEGATIVE)
def test_certificates_that_only_claim_a_manufacturer_are_refused(case: str) -> None:
    """R-14, R-16, R-17, SR-03: also for the very key that signed, so nothing is taken for a stand-in."""
    signer, key, said = NEGATIVE[case]
    chain = (signer.der, make_idevid().der, SUB.der)
    for certified in (NEW_KEY, key):
        message = signed_by(signer, key, certified=certified, certificates=chain)
        assert refuse(acme(), message) == BAD_REQUEST
        assert said in why(acme(), message)


def test_a_store_may_be_lenient() -> None:
    """R-14: expired hardware and SHA-1 where configured."""
    ended, sha1 = make_idevid(validity=ENDED), make_idevid(digest="sha1")
    lenient = acme(check_validity=ValidityCheck.IGNORE_NOT_AFTER)
    assert enroll(lenient, signed_by(ended)).reply_to.standing == ByManufacturer(store="acme")
    assert enroll(acme(allow_sha1=True), signed_by(sha1)).reply_to.standing == ByManufacturer(store="acme")


@pytest.mark.parametrize(
    ("subject", "extensions", "device_id"),
    [
        ("serialNumber=PID:TST-1000 SN:FTX1234ABCD", (DEVICE_USAGE,), "serial:FTX1234ABCD"),
        ("serialNumber=PID:TST-1000 SN:FTX1234ABCD,CN=Q5CA-4AQR-L9YS", (DEVICE_USAGE,), "serial:FTX1234ABCD"),
        ("CN=Q5CA-4AQR-L9YS+serialNumber=PID:T SN:FTX1234ABCD+O=Acme Mfg", (DEVICE_USAGE,), "serial:FTX1234ABCD"),
        ("", (DEVICE_USAGE, hardware_module_name()), "hwmodule:1.3.6.1.4.1.99999.1:FTX1234ABCD"),
    ],
    ids=["single RDN", "Cloud ID in CN", "multi-valued RDN", "empty subject"],
)
def test_every_layout_of_a_subject_names_the_device(
    subject: str, extensions: tuple[bytes, ...], device_id: str
) -> None:
    """And the request that repeats the serial agrees."""
    event = enroll(acme(), signed_by(make_idevid(parse_name(subject), extensions=extensions)))
    claims = device_certificate_claims(event.reply_to.signer)
    assert str(choose_device_id(claims)) == device_id
    check_same_device(claims, requested(event))


def test_a_request_for_another_serial_disagrees_with_its_signer() -> None:
    """R-15: the signature is good, the identity is not."""
    event = enroll(acme(), signed_by(make_idevid(), subject="serialNumber=FTX9999ZZZZ"))
    with pytest.raises(IdentityError, match=r"signer.subject.serialNumber says .*ABCD, .* says serial:FTX9999ZZZZ"):
        check_same_device(device_certificate_claims(event.reply_to.signer), requested(event))


def requested(event: EnrollmentRequested) -> Any:
    """Return the claims of the PKCS#10."""
    csr = event.csr
    rules = ("subject.serialNumber", "san", "subject.commonName")
    return extract_claims(subject=csr.subject, subject_alt_name=csr.subject_alt_name, rules=rules)


def test_the_answer_to_an_ec_idevid_cannot_be_encrypted() -> None:
    """802.1AR allows EC; SCEP's key transport does not (RFC 8894 3.1)."""
    leaf = make_idevid(key=ec_key())
    assert refuse(acme(), signed_by(leaf, ec_key())) == BAD_ALG
    lenient = ServerRules(algorithms=AlgorithmPolicy.of(password_envelope=True))
    server = make_server(lenient, trust=SignerTrust(manufacturers=[make_store()]))
    assert refuse(server, signed_by(leaf, ec_key())) == BAD_ALG


# --- possession ----------------------------------------------------------------------------------------------------


def test_the_request_proves_possession_by_itself() -> None:
    """SR-03: another key than the signer's is fine, another key's signature is not."""
    request = Request(key=NEW_KEY, attributes=None, signature=bytes(256)).encode()
    message = replace(signed_by(make_idevid()), content=Envelope(content=request, recipient=RA).encode())
    assert refuse(acme(), message) == BAD_CHECK


# --- strangers -----------------------------------------------------------------------------------------------------


def test_strangers_cost_no_signature_but_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are looked for only where names lead into a store."""
    monkeypatch.setattr("scep_ra.scep.standing.find_path", None)
    key = rsa_key("stranger")
    foreign = make_certificate(make_ca(name="foreign"), spki(key))
    for signer in (stand_in(key), foreign):
        assert enroll(acme(), signed_by(signer, key, certified=key)).reply_to.standing == SelfMade()
        assert refuse(acme(), signed_by(signer, key)) == BAD_CHECK


def test_a_renewal_is_a_renewal_beside_manufacturers() -> None:
    """A certificate of ours is found by our CA's signature."""
    ours = make_certificate(make_ca(), spki(DEVICE_KEY))
    for number in ("17", "19"):
        assert enroll(acme(), signed_by(ours, message_type=number)).reply_to.standing == IssuedByUs()
    forged = certificate(DEVICE_KEY, issuer=make_ca().chain[0].subject, issuer_key=LOOKALIKE_KEY)
    assert "names our CA as issuer" in why(acme(), signed_by(forged, certified=DEVICE_KEY))


# --- registration authorities --------------------------------------------------------------------------------------

RA_KEY = rsa_key("branch RA")
BRANCH_CA_NAME = parse_name("CN=Branch CA")
BRANCH_CA_KEY = rsa_key("branch CA")
BRANCH_CA = make_authority("branch CA", BRANCH_CA_NAME)


def branch_ra(*extensions: bytes, **fields: Any) -> Certificate:
    usual: dict[str, Any] = {"issuer": BRANCH_CA_NAME, "issuer_key": BRANCH_CA_KEY, "validity": LIFETIME}
    return certificate(RA_KEY, subject=parse_name("CN=branch"), extensions=extensions, **usual | fields)


def pinning(*certificates: Certificate, issuers: TrustStore | None = None) -> ScepServer:
    ra = RegistrationAuthority(name="branch", pinned=certificates, issuers=issuers)
    return acme(SignerTrust(registration_authorities=[ra]))


def issuers(ca: Certificate = BRANCH_CA) -> TrustStore:
    return TrustStore(name="branch", anchors=(ca,), options=TrustOptions(extended_key_usage=oids.CMC_RA))


@pytest.mark.parametrize("number", ["19", "17"])
def test_a_pinned_ra_asks_for_devices(number: str) -> None:
    """For any key that signed its own request, under any message type."""
    event = enroll(pinning(branch_ra()), signed_by(branch_ra(), RA_KEY, message_type=number))
    assert event.reply_to.standing == OnBehalf(ra="branch")
    assert event.csr.spki == spki(NEW_KEY)


def test_only_the_very_certificate_is_pinned() -> None:
    """Another over the same key and name is a stranger's."""
    other = branch_ra(certificate_serial=2)
    assert refuse(pinning(branch_ra()), signed_by(other, RA_KEY)) == BAD_CHECK


@pytest.mark.parametrize(
    ("pinned", "said"),
    [
        (branch_ra(validity=ENDED), "has expired"),
        (branch_ra(validity=(NOW + timedelta(days=1), NOW + timedelta(days=2))), "is not valid before"),
        (branch_ra(key_usage(KEY_ENCIPHERMENT)), "digital signatures"),
    ],
)
def test_a_pinned_ra_has_to_be_valid_now(pinned: Certificate, said: str) -> None:
    """A forgotten pin ends with its certificate."""
    assert said in why(pinning(pinned), signed_by(pinned, RA_KEY, certified=RA_KEY))


def test_a_ca_may_name_its_ras() -> None:
    """RFC 6402 2.10: id-kp-cmcRA, and not any certificate of that CA."""
    server = pinning(issuers=issuers())
    assert enroll(server, signed_by(branch_ra(CMC_RA), RA_KEY)).reply_to.standing == OnBehalf(ra="branch")
    assert "lacks the extendedKeyUsage" in why(server, signed_by(branch_ra(), RA_KEY, certified=RA_KEY))
    forged = branch_ra(CMC_RA, issuer_key=LOOKALIKE_KEY)
    assert refuse(server, signed_by(forged, RA_KEY, certified=RA_KEY)) == BAD_REQUEST


def test_an_ra_below_our_own_ca_asks_for_devices_and_renews_for_itself() -> None:
    """Its certificate is ours: PKCSReq is for others, RenewalReq for a successor of the certificate."""
    ours = make_certificate(make_ca(), spki(RA_KEY))
    assert enroll(pinning(ours), signed_by(ours, RA_KEY)).reply_to.standing == OnBehalf(ra="branch")
    renewal = enroll(pinning(ours), signed_by(ours, RA_KEY, message_type="17"))
    assert renewal.reply_to.standing == IssuedByUs()


def test_devices_of_the_ca_that_names_ras_keep_their_standing() -> None:
    """`issued_by` our own CA does not turn its devices away for being no RAs."""
    server = pinning(issuers=issuers(make_ca().chain[0]))
    device = make_certificate(make_ca(), spki(DEVICE_KEY))
    assert enroll(server, signed_by(device)).reply_to.standing == IssuedByUs()


def test_nobody_is_trusted_unless_configured() -> None:
    """Deny by default."""
    assert (NOBODY.manufacturers, NOBODY.registration_authorities) == ((), ())
