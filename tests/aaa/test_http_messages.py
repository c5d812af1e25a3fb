"""Claims about the JSON of webhooks: what services are told of a request, and which replies mean something."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from scep_ra.aaa.base import Accept, AccessRequest, MalformedAnswer, Reject
from scep_ra.aaa.http_messages import encode_notice, encode_question, read_reply
from scep_ra.identity.types import parse_device_id
from scep_ra.pki import der, oids
from scep_ra.pki.certificates import Extension
from scep_ra.pki.csr import build_request, parse_request
from scep_ra.pki.general_names import encode_general_names, read_general_name
from scep_ra.pki.names import parse_name
from tests.support.authorizers import notice
from tests.support.pki import make_ca, make_certificate, make_key

AT = datetime(2026, 10, 1, 14, 30, tzinfo=timezone(timedelta(hours=2)))
KEY = make_key("ec-p256")
CHALLENGE = "correct-horse-battery"
SUBJECT = parse_name("C=US,ST=Ohio,L=Akron,STREET=Main,O=Example,OU=A,OU=B,serialNumber=SN1,CN=router1,UID=u")
NAMES = encode_general_names(
    map(read_general_name, ["dns:r1.example", "email:a@b.example", "ip:192.0.2.7", "uri:urn:x", "upn:u@example"])
)


def csr_of(subject: bytes = SUBJECT, names: bytes | None = NAMES, *, rsa: bool = False) -> bytes:
    extensions = () if names is None else (Extension(oid=oids.SUBJECT_ALT_NAME, critical=False, value=names),)
    key = make_key() if rsa else KEY
    return build_request(subject=subject, key=key, challenge_password=CHALLENGE, extensions=extensions)


def asked(kind: Any = "AUTHORIZING", **fields: Any) -> dict[str, Any]:
    """Return what a service reads."""
    question = {"profile": "vpn", "source": "192.0.2.1", "renewal": False, "csr": csr_of(), **fields}
    request = AccessRequest(device_id=parse_device_id("serial:SN1"), **question)
    document: dict[str, Any] = json.loads(encode_question(request, kind=kind, now=AT))
    return document


def raw_of(document: dict[str, Any]) -> bytes:
    return base64.b64decode(document["x509CertificateRequest"]["raw"])


# --- questions -----------------------------------------------------------------------------------------------------


def test_a_question_has_the_fields_of_step_ca() -> None:
    """Services made for it find what they look for; the rest is in an object of ours."""
    document = asked(transaction_id="T1")
    fields = document.pop("x509CertificateRequest")
    assert document == {
        "timestamp": "2026-10-01T12:30:00Z",
        "provisionerName": "vpn",
        "scepTransactionID": "T1",
        "scepRa": {
            "deviceId": {"kind": "serial", "value": "SN1"},
            "profile": "vpn",
            "clientIp": "192.0.2.1",
            "renewal": False,
            "recheck": False,
            "certificateSerial": None,
        },
    }
    assert fields.pop("raw")
    assert fields == {
        "subject": {
            "country": ["US"],
            "province": ["Ohio"],
            "locality": ["Akron"],
            "streetAddress": ["Main"],
            "organization": ["Example"],
            "organizationalUnit": ["A", "B"],
            "serialNumber": "SN1",
            "commonName": "router1",
        },
        "dnsNames": ["r1.example"],
        "emailAddresses": ["a@b.example"],
        "ipAddresses": ["192.0.2.7"],
        "uris": ["urn:x"],
        "publicKey": base64.b64encode(KEY.spki).decode(),
        "publicKeyAlgorithm": "ECDSA",
    }


def test_a_question_about_a_device_does_not_give_the_challenge_away() -> None:
    """It is somebody else's secret; the request is otherwise the one that came."""
    document = asked()
    assert "scepChallenge" not in document
    assert raw_of(document) == parse_request(csr_of()).without_challenge()
    assert CHALLENGE.encode() not in raw_of(document)


def test_a_question_about_a_challenge_hands_it_over_with_the_very_request() -> None:
    """Some challenges are signatures over the request, which no octet may lack."""
    document = asked("SCEPCHALLENGE")
    assert document["scepChallenge"] == CHALLENGE
    assert CHALLENGE.encode() in raw_of(document)


@pytest.mark.parametrize("kind", ["AUTHORIZING", "SCEPCHALLENGE"])
def test_what_is_not_there_is_left_out(kind: str) -> None:
    """Headends ask about devices that send no request just now."""
    document = asked(kind, csr=b"")
    assert not {"x509CertificateRequest", "scepChallenge", "scepTransactionID"} & set(document)


def test_a_renewal_names_the_old_certificate() -> None:
    """In hexadecimal, as everywhere here."""
    said = asked(renewal=True, recheck=True, certificate_serial=0xABC)["scepRa"]
    assert (said["renewal"], said["recheck"], said["certificateSerial"]) == (True, True, "abc")


def test_the_kind_of_a_key_has_a_word() -> None:
    """As Go calls it."""
    assert asked(csr=csr_of(rsa=True))["x509CertificateRequest"]["publicKeyAlgorithm"] == "RSA"


def test_names_that_cannot_be_read_stand_in_the_raw_request_alone() -> None:
    """Neither a name of a strange type nor alternative names that are none end a question."""
    number = der.sequence(der.oid(oids.COMMON_NAME), der.integer(7))
    csr = csr_of(der.sequence(der.set_of([number])), der.integer(7))
    fields = asked(csr=csr)["x509CertificateRequest"]
    assert (fields["subject"], fields["dnsNames"]) == ({}, [])
    assert asked(csr=csr_of(names=None))["x509CertificateRequest"]["uris"] == []


# --- notices -------------------------------------------------------------------------------------------------------


def test_a_notice_of_success_carries_the_certificate() -> None:
    """Webhook NOTIFYING."""
    certificate = make_certificate(make_ca("ec-p256"), KEY.spki, subject=SUBJECT)
    told = json.loads(encode_notice(notice(csr=csr_of(), certificate=certificate.der), now=AT))
    fields = told["x509Certificate"]
    assert base64.b64decode(fields["raw"]) == certificate.der
    assert fields["serialNumber"] == str(certificate.certificate_serial)
    assert fields["subject"]["commonName"] == "router1"
    assert datetime.fromisoformat(fields["notBefore"]) == certificate.not_before
    assert fields["issuer"]["organization"] == ["Test"]
    assert told["scepTransactionID"] == "T1"
    assert "scepErrorCode" not in told


def test_a_notice_of_failure_says_why() -> None:
    """With the number of the failInfo that the device heard: badRequest."""
    told = json.loads(encode_notice(notice(csr=csr_of(), reason="too late"), now=AT))
    assert (told["scepErrorCode"], told["scepErrorDescription"]) == (2, "too late")
    assert told["scepRa"]["deviceId"] == {"kind": "serial", "value": "SN1"}
    assert "x509Certificate" not in told


def test_a_notice_may_be_about_a_request_that_named_no_device() -> None:
    """It was refused for that."""
    told = replace(notice(csr=csr_of(), reason="no device"), device_id=None)
    assert json.loads(encode_notice(told, now=AT))["scepRa"]["deviceId"] is None


# --- replies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "decision"),
    [
        ({"allow": True}, Accept()),
        ({"allow": True, "data": None}, Accept()),
        (
            {"allow": True, "data": {"user": "alice", "services": ["a", "b"], "approval": True, "floor": 3}},
            Accept(attributes={"user": "alice", "floor": "3"}, services=frozenset("ab"), approval=True),
        ),
        ({"allow": True, "error": {"message": "left over"}}, Accept()),
        ({"allow": False}, Reject(reason="the web service said no")),
        ({"allow": False, "error": {"code": "E7", "message": "stolen"}}, Reject(reason="E7 stolen")),
        ({"allow": False, "data": {"user": "alice"}}, Reject(reason="the web service said no")),
    ],
)
def test_a_reply_allows_or_not(reply: object, decision: object) -> None:
    """Data become attributes, an error becomes the reason."""
    assert read_reply(json.dumps(reply).encode()) == decision


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"yes",
        b"\xff\xfe",
        b"true",
        b'["allow"]',
        b"{}",
        b'{"allow": "true"}',
        b'{"allow": 1}',
        b'{"allow": null}',
        b'{"allow": true',
        b'{"allow": true, "data": ["user"]}',
        b'{"allow": true, "data": {"user": {"name": "alice"}}}',
        b'{"allow": true, "data": {"valid_until": "soon"}}',
        b'{"allow": false, "error": "no"}',
        b"[" * 100_000,
    ],
)
def test_whatever_is_not_clearly_a_reply_is_none(body: bytes) -> None:
    """Half an answer is none, and none is never a yes."""
    with pytest.raises(MalformedAnswer):
        read_reply(body)
