"""Claims about explaining captured octets, on captures of real clients and on what our own sides write."""

from __future__ import annotations

import base64
import json
import secrets
import ssl
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.pki import der, oids
from scep_ra.pki.algorithms import Cipher, Digest, KeyTransport
from scep_ra.pki.certificates import Extension, parse_certificate
from scep_ra.pki.csr import build_request, encode_attribute
from scep_ra.pki.enveloped_data import encode_enveloped_data, encode_key_transport, seal_envelope
from scep_ra.pki.errors import MalformedData
from scep_ra.pki.general_names import GeneralName, encode_general_names
from scep_ra.pki.issuance import assemble_signed, assemble_tbs, encode_extension, signature_algorithm
from scep_ra.pki.keys import load_private_key
from scep_ra.pki.names import parse_name
from scep_ra.pki.signed_data import MessageSigner, build_certs_only
from scep_ra.revocation.crl import RevocationReason, build_tbs_crl
from scep_ra.scep.client import ClientRules
from scep_ra.scep.explain import Explainer, Section, Value
from scep_ra.scep.message import build_message
from scep_ra.scep.server import RecipientKey
from scep_ra.scep.terms import FailInfo, MessageType
from scep_ra.storage.base import Revocation
from tests.support import vectors
from tests.support.pki import NOW, make_certificate, sign_tbs
from tests.support.scep_pair import CHALLENGE, SUBJECT, ScepPair, device_key, make_csr, make_requester

BLIND = Explainer(random=secrets.token_bytes)


def with_key_of(certificate: str, key: str) -> Explainer:
    recipient = RecipientKey(
        certificate=parse_certificate(ssl.PEM_cert_to_DER_cert(vectors.read(certificate).decode())),
        key=load_private_key(vectors.read(key)),
    )
    return replace(BLIND, keys=[recipient])


SEEING = with_key_of("ra.pem", "ra-TEST-ONLY.key")


def walk(section: Section) -> Iterator[Section]:
    yield section
    for inner in section.sections:
        yield from walk(inner)


def find(section: Section, title: str) -> Section:
    return next(each for each in walk(section) if each.title == title)


def fact(section: Section, title: str, name: str) -> Value | None:
    return find(section, title).facts.get(name)


def text_of(section: Section) -> str:
    return json.dumps([[each.title, dict(each.facts)] for each in walk(section)])


# --- captures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "algorithms", "subject", "challenge"),
    [
        (
            "sscep-0.10-post-aes128-sha256.http",
            ("sha256", "aes128-cbc", True),
            "CN=dev1,serialNumber=FTX1234",
            "absent",
        ),
        ("sscep-0.10-get-3des-sha1.http", ("sha1", "des-ede3-cbc", False), "CN=dev1,serialNumber=FTX1234", "absent"),
        *(
            (f"scepclient-2.1-{form}.http", ("sha1", "des-cbc", False), "C=US,O=scep-client,OU=MDM,CN=dev2", "6")
            for form in ("get-base64url-des-sha1", "post-des-sha1-two-recipients")
        ),
        ("strongswan-5.9.8-post-aes128-sha512.http", ("sha512", "aes128-cbc", True), "C=CH,O=x,CN=dev3", "6"),
    ],
)
def test_a_captured_request_is_explained_down_to_its_csr(
    name: str, algorithms: tuple[str, str, bool], subject: str, challenge: str
) -> None:
    """HTTP, message, signer, envelope, request: all that an operator asks when a client is refused."""
    digest, cipher, allowed = algorithms
    section = SEEING.explain(vectors.read(name))
    assert section.title == "HTTP request"
    assert section.facts["operation"] == "PKIOperation"
    message = find(section, "PKIMessage").facts
    assert message["message_type"] == "PKCSReq (19)"
    assert (message["digest"], message["digest_is_allowed_by_default"]) == (digest, allowed)
    assert message["signature"] == "verifies"
    envelope = find(section, "pkcsPKIEnvelope").facts
    assert (envelope["cipher"], envelope["cipher_is_allowed_by_default"]) == (cipher, allowed)
    assert "certificate serial c of O=T,CN=CA, RSA PKCS#1 v1.5" in str(envelope["recipients"])
    assert envelope["opened"] == "with the key of O=T,CN=RA"
    request = find(section, "PKCS#10 request").facts
    assert request["subject"] == subject
    assert request["proof_of_possession"] == "holds"
    assert request["key_is_that_of_the_signer"] is True
    assert challenge in str(request["challenge"])
    assert find(section, "signer").facts["is_self_issued"] is True


@pytest.mark.parametrize("name", vectors.CAPTURED_REQUESTS)
def test_without_the_key_the_envelope_stays_closed_and_the_rest_is_told(name: str) -> None:
    """What is signed in the open is still explained."""
    section = BLIND.explain(vectors.read(name))
    assert fact(section, "PKIMessage", "signature") == "verifies"
    assert fact(section, "pkcsPKIEnvelope", "opened") == "no: the key of a recipient is not at hand"
    assert "PKCS#10 request" not in [each.title for each in walk(section)]


@pytest.mark.parametrize("name", vectors.CAPTURED_REPLIES)
def test_both_forms_of_a_pending_certrep_are_explained(name: str) -> None:
    """Nothing encrypted, so there is no envelope."""
    section = BLIND.explain(vectors.read(name))
    assert section.facts["message_type"] == "CertRep (3)"
    assert section.facts["pki_status"] == "PENDING (3)"
    assert section.facts["recipient_nonce"]
    assert [each.title for each in walk(section)] == ["PKIMessage", "signer"]


def test_ber_is_read() -> None:
    """Streamed OpenSSL output: a bare envelope, and signed data that is no SCEP."""
    enveloped = vectors.read("ber-indefinite-envelopeddata-openssl-stream.ber")
    section = with_key_of("ber-recipient.pem", "ber-recipient-TEST-ONLY.key").explain(enveloped)
    assert section.facts["opened"] == "with the key of CN=RAenc"
    assert section.sections[0].facts["octets"] == 360
    signed = BLIND.explain(vectors.read("ber-indefinite-signeddata-openssl-stream.ber"))
    assert signed.title == "SignedData that is no SCEP message"


def test_a_private_key_is_not_shown() -> None:
    """Somebody gave the wrong file."""
    section = BLIND.explain(vectors.read("ra-TEST-ONLY.key"))
    assert section == Section(title="private key", facts={"label": "PRIVATE KEY", "contents": "not shown"})


# --- what carries it -----------------------------------------------------------------------------------------------


def test_the_same_message_is_found_in_every_wrapping() -> None:
    """DER, PEM, base64 in lines, and an HTTP response."""
    octets = vectors.read("certrep-pending-absent-econtent.der")
    plain = BLIND.explain(octets)
    lines = base64.encodebytes(octets)
    assert BLIND.explain(lines) == plain
    assert BLIND.explain(b"-----BEGIN PKCS7-----\n" + lines + b"-----END PKCS7-----\n") == plain
    response = BLIND.explain(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-pki-message\r\n\r\n" + octets)
    assert response == Section(title="HTTP response", facts={"status": 200}, sections=(plain,))


def test_a_pem_file_of_several_is_explained_one_by_one() -> None:
    """A chain, say."""
    section = BLIND.explain(vectors.read("ra.pem") + vectors.read("ca.pem"))
    assert section.title == "PEM file"
    assert [each.facts["subject"] for each in section.sections] == ["O=T,CN=RA", "O=T,CN=CA"]


def test_an_html_page_in_a_response_is_named_a_problem() -> None:
    """The usual answer of what is no SCEP server."""
    section = BLIND.explain(b"HTTP/1.1 404 Not Found\r\n\r\n<html>")
    assert section.facts["status"] == 404
    assert "neither HTTP, PEM, base64 nor ASN.1" in str(section.facts["problem"])
    assert BLIND.explain(b"HTTP/1.0 200 OK\r\n").facts["octets"] == 0


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        (b"GET /scep?operation=GetCACert&message=0 HTTP/1.1\r\n\r\n", {"operation": "GetCACert", "ca_identifier": "0"}),
        (b"GET /scep?operation=x\xff HTTP/1.0\r\n\r\n", {"problem": "400: no SCEP operation in the query"}),
        (b"POST /\x1b[2J?operation=GetCACaps HTTP/1.1\r\n\r\n", {"path": "/\\u001b[2J"}),
    ],
)
def test_other_http_requests_are_named(request_line: bytes, expected: dict[str, Value]) -> None:
    """With what is wrong about them, and nothing in it that could play with a terminal."""
    section = BLIND.explain(request_line)
    assert section.title == "HTTP request"
    assert expected.items() <= section.facts.items()


@pytest.mark.parametrize(
    ("octets", "pattern"),
    [
        (b"", "neither HTTP"),
        (b"no idea!", "neither HTTP"),
        (b"abcde", "base64 that is cut off"),
        (b"-----BEGIN X-----\n!\n-----END X-----", "base64 that is cut off"),
        (der.sequence(der.sequence(der.integer(1))), "nor a CRL"),
        (der.sequence(der.oid(oids.DATA), der.explicit(0, der.NULL)), "CMS content type"),
    ],
)
def test_what_is_nothing_of_ours_is_said_so(octets: bytes, pattern: str) -> None:
    """MalformedData names what was tried."""
    with pytest.raises(MalformedData, match=pattern):
        BLIND.explain(octets)


@given(octets=st.binary(max_size=200))
def test_arbitrary_octets_raise_malformed_data_only(octets: bytes) -> None:
    """Or are explained."""
    try:
        section = SEEING.explain(octets)
    except MalformedData:
        return
    assert section.title


@given(position=st.integers(0, 2500), change=st.integers(1, 255), name=st.sampled_from(vectors.CAPTURED_REQUESTS))
def test_a_damaged_capture_is_explained_as_far_as_it_goes(position: int, change: int, name: str) -> None:
    """One octet changed: an explanation or MalformedData, nothing else."""
    octets = bytearray(vectors.message(name))
    octets[position % len(octets)] ^= change
    try:
        section = SEEING.explain(bytes(octets))
    except MalformedData:
        return
    assert section.title


# --- our own messages ----------------------------------------------------------------------------------------------


@pytest.fixture
def pair() -> ScepPair:
    return ScepPair()


def seeing(pair: ScepPair) -> Explainer:
    """Return an explainer with the keys of both sides."""
    requester = make_requester(device_key())
    ra = RecipientKey(certificate=pair.ra.certificate, key=pair.ra.key)
    return replace(BLIND, keys=[ra, RecipientKey(certificate=requester.certificate, key=device_key())])


NAMES = encode_general_names(
    [GeneralName(kind="dns", text="r1.example"), GeneralName(kind="uri", text="urn:x:\x1b[2J")]
)


def test_the_challenge_is_told_by_its_length_only(pair: ScepPair) -> None:
    """Neither in the clear nor in any other form."""
    csr = make_csr(device_key(), extensions=(Extension(oid=oids.SUBJECT_ALT_NAME, critical=False, value=NAMES),))
    call = pair.client(make_requester(device_key())).enroll(csr)
    section = replace(seeing(pair), identify=lambda request: (f"serial of {len(request.subject)}",)).explain(
        call.message
    )
    request = find(section, "PKCS#10 request").facts
    assert request["challenge"] == f"present, {len(CHALLENGE)} characters"
    assert request["device_ids"] == (f"serial of {len(SUBJECT)}",)
    assert request["requested_extensions"] == ("subjectAltName",)
    assert request["subject_alt_name"] == ("dns:r1.example", "uri:urn:x:\\u001b[2J")
    assert request["form"] == "well-formed"
    for secret in (CHALLENGE, CHALLENGE.encode().hex(), base64.b64encode(CHALLENGE.encode()).decode()):
        assert secret not in text_of(section)


def test_a_password_envelope_names_whoever_knows_the_challenge(pair: ScepPair) -> None:
    """RFC 8894 3.1."""
    key = device_key("ec-p256")
    section = BLIND.explain(pair.client(make_requester(key)).enroll(make_csr(key)).message)
    assert fact(section, "pkcsPKIEnvelope", "recipients") == ("whoever knows the challenge (password-based)",)
    assert fact(section, "signer", "public_key") == "EC, secp256r1"
    assert fact(section, "PKIMessage", "signature_algorithm") == "ecdsa with sha256"


def test_queries_and_polls_show_what_they_ask_for(pair: ScepPair) -> None:
    """Issuer and serial, or issuer and subject."""
    requester = make_requester(device_key())
    explainer = seeing(pair)
    query = explainer.explain(pair.client(requester).get_certificate(pair.ca.chain[0].subject, 0xBEEF).message)
    assert query.facts["message_type"] == "GetCert (21)"
    assert fact(query, "IssuerAndSerialNumber", "certificate_serial") == "beef"
    client = pair.client(requester)
    client.enroll(make_csr(device_key()))
    poll = explainer.explain(client.poll().message)
    assert poll.facts["message_type"] == "CertPoll (20)"
    assert "FOC1234X0AB" in str(fact(poll, "IssuerAndSubject", "subject"))


def test_a_certrep_is_opened_with_the_key_of_the_requester(pair: ScepPair) -> None:
    """The same command helps on the device's side."""
    requester = make_requester(device_key())
    event = pair.carry(pair.client(requester).enroll(make_csr(device_key())))
    issued = pair.issue(device_key().spki)
    reply = pair.server.success(event.reply_to, [issued])
    key = RecipientKey(certificate=requester.certificate, key=device_key())
    section = replace(BLIND, keys=[*SEEING.keys, key]).explain(reply.body)
    assert section.facts["pki_status"] == "SUCCESS (0)"
    assert find(section, "certs-only message").facts == {"certificates": 1, "crls": 0}
    assert fact(section, "certificate", "sha256_fingerprint") == issued.fingerprint()


def test_a_failure_is_explained_in_words(pair: ScepPair) -> None:
    """FailInfo and its text."""
    event = pair.carry(pair.client(make_requester(device_key())).enroll(make_csr(device_key())))
    section = BLIND.explain(pair.server.failure(event.reply_to, FailInfo.BAD_TIME, "clock\r\n").body)
    assert section.facts["pki_status"] == "FAILURE (2)"
    assert section.facts["fail_info"] == "BAD_TIME (3)"
    assert section.facts["fail_info_text"] == "clock\\u000d\\u000a"


def crafted(pair: ScepPair, content: bytes | None, *extra: bytes) -> bytes:
    """Return a message of the RA with this content."""
    return build_message(
        signer=MessageSigner(pair.ra.key, pair.ra.certificate),
        digest=Digest.SHA256,
        message_type=MessageType.PKCS_REQ,
        transaction_id="t",
        sender_nonce=b"n",
        content=content,
        extra=extra,
    )


def test_undefined_numbers_and_broken_attributes_are_named(pair: ScepPair) -> None:
    """The message is explained around them."""
    octets = crafted(
        pair,
        b"\x30\x00",
        encode_attribute(oids.MESSAGE_TYPE, der.directory_string("19")),
        encode_attribute(oids.PKI_STATUS, der.directory_string("9")),
        encode_attribute(oids.FAIL_INFO, der.directory_string("77")),
        encode_attribute(oids.SIGNING_TIME, der.NULL),
    )
    facts = BLIND.explain(octets).facts
    assert str(facts["message_type"]).startswith("unreadable: signed attribute")
    assert facts["pki_status"] == "undefined (9)"
    assert facts["fail_info"] == "undefined (77)"
    assert "unreadable" in str(facts["signing_time"])


def test_an_unknown_message_type_is_told_as_it_is(pair: ScepPair) -> None:
    """18 was UpdateReq in drafts."""
    known = encode_attribute(oids.MESSAGE_TYPE, der.directory_string("19"))
    unknown = encode_attribute(oids.MESSAGE_TYPE, der.directory_string("18"))
    octets = crafted(pair, None).replace(known, unknown)
    facts = BLIND.explain(octets).facts
    assert facts["message_type"] == "18, which RFC 8894 does not define"
    assert facts["signature"] == "DOES NOT VERIFY: signature does not verify"


def test_content_that_is_no_envelope_is_a_problem(pair: ScepPair) -> None:
    """Said where the envelope should be."""
    section = BLIND.explain(crafted(pair, b"\x30\x00"))
    assert "missing" in str(fact(section, "pkcsPKIEnvelope", "problem"))


def test_an_envelope_that_does_not_open_or_holds_something_else_is_told(pair: ScepPair) -> None:
    """A wrong key, unreadable contents, and contents of no known kind."""
    sealed = seal_envelope(b"text", pair.ra.certificate, Cipher.AES256, secrets.token_bytes)
    wrong = RecipientKey(certificate=pair.ra.certificate, key=device_key())
    section = replace(BLIND, keys=[wrong]).explain(sealed)
    assert str(section.facts["opened"]).startswith("no: it does not open with the key of")
    opened = seeing(pair).explain(crafted(pair, sealed))
    assert fact(opened, "content", "octets") == 4
    recipient = der.sequence(
        der.integer(0),
        der.element(der.context(0, constructed=False), b"\xab"),
        encode_key_transport(KeyTransport(oaep_digest=Digest.SHA256, mgf_digest=Digest.SHA256)),
        der.octet_string(b""),
    )
    octets = encode_enveloped_data(
        version=0,
        recipient_info=recipient,
        content=b"",
        cipher=Cipher.AES128,
        content_key=bytes(16),
        random=secrets.token_bytes,
    )
    assert BLIND.explain(octets).facts["recipients"] == ("key identifier ab, RSA OAEP with sha256",)
    aes = der.oid(oids.AES128_CBC)
    strange = sealed.replace(der.oid(oids.AES256_CBC), aes[:-1] + b"\x7f")
    facts = BLIND.explain(strange).facts
    assert "unknown content encryption algorithm" in str(facts["cipher"])
    assert facts["cipher_is_allowed_by_default"] is False


def test_the_default_rules_are_those_of_the_server(pair: ScepPair) -> None:
    """Digest and cipher as the profile without options has them."""
    rules = ClientRules(digest=Digest.SHA1, cipher=Cipher.TRIPLE_DES)
    section = BLIND.explain(pair.client(make_requester(device_key()), rules).enroll(make_csr(device_key())).message)
    assert section.facts["digest_is_allowed_by_default"] is False
    assert fact(section, "pkcsPKIEnvelope", "cipher_is_allowed_by_default") is False


# --- requests, certificates, CRLs ----------------------------------------------------------------------------------


def test_a_broken_request_is_explained_part_by_part() -> None:
    """Wrong signature, unfit key, two challenges."""
    key = device_key("ec-p256")
    good = build_request(subject=SUBJECT, key=key)
    unsigned = BLIND.explain(good[:-1] + bytes([good[-1] ^ 1])).facts
    assert unsigned["proof_of_possession"] == "DOES NOT HOLD: signature does not verify"
    assert unsigned["challenge"] == "absent"
    challenge = encode_attribute(oids.CHALLENGE_PASSWORD, der.directory_string("secret"))
    spki = der.sequence(der.sequence(der.oid("1.3.101.112")), der.bit_string(bytes(32)))
    info = der.sequence(der.integer(0), SUBJECT, spki, der.explicit(0, challenge + challenge))
    octets = der.sequence(info, signature_algorithm(key.spki), der.bit_string(b""))
    facts = BLIND.explain(octets).facts
    assert facts["public_key"] == "unusable: public key is neither RSA nor on a NIST curve"
    assert str(facts["public_key_is_accepted_by_default"]).startswith("no: ")
    assert facts["challenge"] == "unreadable: more than one challengePassword"
    assert facts["form"] == "BROKEN: more than one challengePassword"


def test_unstructured_names_of_a_request_are_shown() -> None:
    """IOS puts the host name there."""
    attribute = encode_attribute(oids.UNSTRUCTURED_NAME, der.element(der.IA5_STRING, b"r1.example"))
    info = der.sequence(der.integer(0), SUBJECT, device_key().spki, der.explicit(0, attribute))
    octets = der.sequence(info, signature_algorithm(device_key().spki), der.bit_string(b""))
    assert BLIND.explain(octets).facts["unstructured_names"] == ("r1.example",)


def test_a_ca_certificate_is_told_from_an_end_entitys(pair: ScepPair) -> None:
    """Usages in the words of RFC 5280."""
    ca = BLIND.explain(pair.ca.chain[0].der).facts
    assert (ca["basic_constraints"], ca["key_usage"]) == ("CA", ("key_cert_sign", "crl_sign"))
    issued = make_certificate(pair.ca, device_key().spki, subject_alt_name=NAMES)
    facts = BLIND.explain(issued.der).facts
    assert facts["basic_constraints"] == "end entity"
    assert facts["certificate_serial"] == f"{issued.certificate_serial:x}"
    assert facts["subject_alt_name"] == ("dns:r1.example", "uri:urn:x:\\u001b[2J")


def test_an_empty_key_usage_is_left_out(pair: ScepPair) -> None:
    """And so is everything that is not there."""
    tbs = assemble_tbs(
        certificate_serial=1,
        algorithm=signature_algorithm(pair.ca.signer.spki),
        issuer=pair.ca.chain[0].subject,
        not_before=NOW,
        not_after=NOW + timedelta(days=1),
        subject=parse_name("CN=x"),
        spki=device_key().spki,
        extensions=encode_extension(oids.KEY_USAGE, der.named_bits()),
    )
    facts = BLIND.explain(sign_tbs(tbs, pair.ca.signer).der).facts
    assert not {"key_usage", "basic_constraints", "subject_alt_name"} & facts.keys()


def test_a_crl_is_explained(pair: ScepPair) -> None:
    """Who, when, until when, how many."""
    revocation = Revocation(certificate_serial=7, revoked_at=NOW, reason=RevocationReason.KEY_COMPROMISE)
    for revocations in ([], [revocation]):
        tbs = build_tbs_crl(
            pair.ca.chain[0], revocations, crl_number=1, this_update=NOW, next_update=NOW + timedelta(days=7)
        )
        algorithm = signature_algorithm(pair.ca.signer.spki)
        crl = assemble_signed(tbs, algorithm, pair.ca.signer.sign(tbs, Digest.SHA256))
        section = BLIND.explain(build_certs_only(crls=[crl]))
        assert section.facts == {"certificates": 0, "crls": 1}
        facts = section.sections[0].facts
        assert facts["revoked_certificates"] == len(revocations)
        assert facts["next_update"] == (NOW + timedelta(days=7)).isoformat()


def test_an_old_crl_without_version_and_next_update_is_explained() -> None:
    """RFC 5280 5.1: both are optional."""
    algorithm = signature_algorithm(device_key().spki)
    tbs = der.sequence(algorithm, SUBJECT, der.time(NOW))
    facts = BLIND.explain(der.sequence(tbs, algorithm, der.bit_string(b""))).facts
    assert "next_update" not in facts
    assert facts["this_update"] == NOW.isoformat()
