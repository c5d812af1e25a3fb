"""Claims about the endpoint over real HTTP, from the status line to what can be read in a reply.

Numbers like H-03 or T-19 are those of the project's protocol checklist. How clients spell a GET is `http_binding`'s,
what a message must be `scep.server`'s, who gets a certificate `enrollment`'s matter; here is seen that they are joined.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Final

import pytest
from asn1crypto import cms
from cryptography.hazmat.primitives.asymmetric import rsa
from structlog.testing import capture_logs

from scep_ra.aaa.base import Accept, Defer, Reject
from scep_ra.aaa.embedded import RegistryAuthorizer
from scep_ra.enrollment.renewal import RenewalRules
from scep_ra.errors import Unavailable
from scep_ra.pki import oids
from scep_ra.pki.algorithms import Cipher, Digest
from scep_ra.pki.certificates import Certificate, parse_certificate
from scep_ra.pki.keys import SoftwareKey, load_public_key
from scep_ra.pki.names import parse_name
from scep_ra.scep.client import (
    Answer,
    ClientRules,
    Failed,
    IssuedCertificate,
    RetrievedCRL,
    StillPending,
)
from scep_ra.scep.policy import AlgorithmPolicy
from scep_ra.scep.standing import RegistrationAuthority, SignerTrust
from scep_ra.scep.terms import FailInfo
from scep_ra.storage.base import Store
from scep_ra.web.errors import PUBLIC_TEXT
from tests.support.enrollment import (
    DAY,
    Clock,
    Gate,
    ScriptedAuthorizer,
    ScriptedCA,
    fail,
    local_ca,
    open_store,
    subject_of,
)
from tests.support.front import MAX_MESSAGE_BYTES, Answered, Device, Profile, Site, serving
from tests.support.keys import ec_key
from tests.support.manufacturer import DEVICE_KEY, DEVICE_USAGE, make_idevid, make_store
from tests.support.pki import make_ca, make_certificate, make_key
from tests.support.raw_http import connect
from tests.support.scep_messages import Envelope, Message, Request, certificate, challenge, name
from tests.support.scep_replies import certificates_of, read_reply

WAIT: Final = Defer(reason="somebody has to look at it")
CAPS: Final = "/scep?operation=GetCACaps"
BAD_REQUEST: Final = FailInfo.BAD_REQUEST


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(tmp_path)
    yield opened
    await opened.close()


@pytest.fixture
def aaa() -> ScriptedAuthorizer:
    return ScriptedAuthorizer()


@pytest.fixture
def ca() -> ScriptedCA:
    return ScriptedCA(local_ca(now=Clock()))


@pytest.fixture
def profile(store: Store, aaa: ScriptedAuthorizer, ca: ScriptedCA) -> Profile:
    return Profile(store=store, clock=Clock(), authorizer=aaa, authority=ca)


@pytest.fixture
async def site(profile: Profile) -> AsyncIterator[Site]:
    async with serving(profile) as running:
        yield running


def issued(answer: Answer) -> Certificate:
    assert isinstance(answer, IssuedCertificate), answer
    return answer.certificate


def refusal(answer: Answer) -> tuple[FailInfo | None, str]:
    assert isinstance(answer, Failed), answer
    return answer.fail_info, answer.text


async def message(profile: Profile, site: Site) -> bytes:
    """Return a PKCSReq with a good challenge."""
    device = Device(site=site)
    transaction = await device.transaction()
    return transaction.enroll(device.csr(await profile.challenge())).message


def status_of(profile: Profile, answer: Answered) -> str:
    """Return the pkiStatus of a CertRep that verifies."""
    assert answer.status == 200
    return read_reply(answer.body, profile.ra.certificate).text(oids.PKI_STATUS)


# --- HTTP (H-01 to H-21) -------------------------------------------------------------------------------------------


async def test_capabilities_are_known_words_one_a_line(site: Site) -> None:
    """H-01: exact case, no blank line, no parameter in the media type."""
    answer = await site.get(CAPS)

    assert (answer.status, answer.content_type) == (200, "text/plain")
    assert len(answer.body) < 1024
    known = {"AES", "POSTPKIOperation", "Renewal", "SHA-512", "SHA-384", "SHA-256", "SCEPStandard"}
    assert sorted(answer.body.decode("ascii").split("\n")[:-1]) == sorted(known)
    assert answer.body.endswith(b"\n")


@pytest.mark.parametrize("operation", ["GetCACaps", "GetCACert"])
@pytest.mark.parametrize("identifier", ["", "&message=", "&message=CAIdentifier", "&message=0", "&message=2", "&x=y"])
async def test_the_ca_identifier_makes_no_difference(site: Site, operation: str, identifier: str) -> None:
    """H-02, C-07, C-08: certmonger counts up, others send a name of their own."""
    expected = await site.get(f"/scep?operation={operation}")

    assert (await site.get(f"/scep?operation={operation}{identifier}")).body == expected.body


async def test_operations_are_compared_without_regard_to_case(site: Site) -> None:
    """H-04."""
    assert (await site.get("/scep?operation=getcacaps")).status == 200


@pytest.mark.parametrize("query", ["", "?", "?operation=", "?operation=GetEverything", "?message=abc"])
async def test_an_operation_that_is_missing_or_unknown_is_a_bad_request(site: Site, query: str) -> None:
    """H-05, H-06."""
    assert (await site.get(f"/scep{query}")).status == 400


@pytest.mark.parametrize(
    ("method", "query"),
    [("POST", "?operation=GetCACaps"), ("POST", "?operation=GetCACert"), ("PUT", "?operation=PKIOperation")]
    + [(method, "?operation=GetCACaps") for method in ("PUT", "DELETE", "PATCH", "OPTIONS")],
)
async def test_other_methods_are_told_which_exist(site: Site, method: str, query: str) -> None:
    """H-03, H-07."""
    answer = await site.send(method, f"/scep{query}")

    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, POST")


async def test_head_is_get_without_a_body(site: Site) -> None:
    """H-08."""
    answer = await site.send("HEAD", CAPS)

    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 0


@pytest.mark.parametrize(
    ("query", "media_type"),
    [
        ("?operation=PKIOperation", None),
        ("?operation=PKIOperation", "application/octet-stream"),
        ("?operation=PKIOperation", "application/x-www-form-urlencoded"),
        ("?operation=PKIOperation", "text/plain; charset=utf-8"),
        ("?operation=PKIOperation", "application/x-pki-message"),
        ("?operation=pkioperation", None),
        ("", None),
    ],
)
async def test_a_message_may_be_posted_under_any_media_type(
    profile: Profile, site: Site, query: str, media_type: str | None
) -> None:
    """H-09 to H-12: the body is never taken for a form."""
    headers = {} if media_type is None else {"Content-Type": media_type}
    answer = await site.send("POST", f"/scep{query}", await message(profile, site), headers)

    assert status_of(profile, answer) == "0"
    assert answer.content_type == "application/x-pki-message"
    assert "Content-Encoding" not in answer.headers
    assert int(answer.headers["Content-Length"]) == len(answer.body)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/scep",
        "/scep/",
        "/scep/default",
        "/scep/no-such-profile/pkiclient.exe",
        "/cgi-bin/pkiclient.exe",
        "/CGI-BIN/PKICLIENT.EXE",
        "//cgi-bin//pkiclient.exe",
        "/certsrv/mscep/mscep.dll/pkiclient.exe",
        "/scep:8081/pkiclient.exe",
    ],
)
async def test_one_service_answers_under_many_paths(site: Site, path: str) -> None:
    """H-13; an unknown name means the default profile."""
    assert (await site.get(f"{path}?operation=GetCACaps")).status == 200


@pytest.mark.parametrize("path", ["/favicon.ico", "/api/v1/devices", "/metrics", "/.well-known/est/cacerts"])
async def test_what_is_not_scep_is_not_found(site: Site, path: str) -> None:
    """Whatever its query says."""
    answer = await site.get(f"{path}?operation=GetCACaps")

    assert (answer.status, answer.content_type) == (404, "text/plain")


async def test_without_a_default_profile_the_name_must_be_right(profile: Profile) -> None:
    """Nobody is served by a profile that was not meant."""
    async with serving(replace(profile, name="lab")) as site:
        assert (await site.get("/scep/lab?operation=GetCACaps")).status == 200
        assert (await site.get("/scep/LAB?operation=GetCACaps")).status == 200
        for path in ("/scep", "/scep/lap", "/cgi-bin/pkiclient.exe"):
            assert (await site.get(f"{path}?operation=GetCACaps")).status == 404


async def test_http_1_0_without_host_is_answered_and_closed(site: Site) -> None:
    """H-14: sscep and IOS."""
    async with connect(site.port) as client:
        client.send(b"GET /cgi-bin/pkiclient.exe?operation=GetCACaps HTTP/1.0\r\n\r\n")
        assert (await client.answer()).status == 200
        assert await client.rest() == b""


async def test_a_chunked_message_is_put_together(profile: Profile, site: Site) -> None:
    """H-15."""
    octets = await message(profile, site)

    async def chunks() -> AsyncIterator[bytes]:
        yield octets[:700]
        yield octets[700:]

    assert status_of(profile, await site.send("POST", "/scep?operation=PKIOperation", chunks())) == "0"


async def test_a_client_that_waits_for_100_continue_is_told_to_go_on(profile: Profile, site: Site) -> None:
    """H-16: the curl family."""
    octets = await message(profile, site)
    async with connect(site.port) as client:
        head = f"POST /scep HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {len(octets)}\r\n\r\n"
        client.send(head.encode())
        assert (await client.answer()).status == 100
        client.send(octets)
        assert (await client.answer()).status == 200


@pytest.mark.parametrize("size", [MAX_MESSAGE_BYTES + 1, MAX_MESSAGE_BYTES * 2])
async def test_a_message_beyond_the_limit_is_too_large(site: Site, size: int) -> None:
    """H-17: whether HTTP or SCEP finds out, and the next request is served."""
    answer = await site.send("POST", "/scep?operation=PKIOperation", b"\x30".ljust(size, b"\x00"))

    assert answer.status == 413
    assert (await site.get(CAPS)).status == 200


async def test_a_body_that_is_cut_short_does_no_harm(site: Site) -> None:
    """H-18: the next request is served."""
    async with connect(site.port) as client:
        client.send(b"POST /scep HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n\x30\x82")
    assert (await site.get(CAPS)).status == 200


@pytest.mark.parametrize(
    ("encoded", "status"),
    [("A" * 20_000, 400), ("M" + "A" * 20_000, 400), ("MIIB", 400), ("*", 400), ("", 400)],
    ids=["long", "impossible length", "truncated", "no base64", "empty"],
)
async def test_a_get_with_garbage_is_a_bad_request(site: Site, encoded: str, status: int) -> None:
    """H-19: a long one, too."""
    assert (await site.get(f"/scep?operation=PKIOperation&message={encoded}")).status == status


@pytest.mark.parametrize(
    "body", [b"", b"\x30", b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"<html>", secrets.token_bytes(99)]
)
async def test_a_body_that_is_no_message_is_a_bad_request(site: Site, body: bytes) -> None:
    """H-20: plain HTTP, because nothing could be signed back; the answer names no detail of a parser."""
    with capture_logs() as log:
        answer = await site.send("POST", "/scep?operation=PKIOperation", body)

    assert (answer.status, answer.content_type) == (400, "text/plain")
    assert [line["event"] for line in log] == ["request_malformed"]


@pytest.mark.parametrize("threads", [0, 2])
async def test_other_requests_are_answered_while_a_ca_takes_its_time(
    profile: Profile, ca: ScriptedCA, threads: int
) -> None:
    """H-21: fifty GetCACert meanwhile."""
    gate = Gate()
    ca.script = [gate]
    async with serving(profile, threads=threads) as site:
        octets = await message(profile, site)
        slow = asyncio.ensure_future(site.send("POST", "/scep", octets))
        await gate.entered.wait()

        answers = await asyncio.gather(*(site.get("/scep?operation=GetCACert") for _ in range(50)))

        assert {answer.status for answer in answers} == {200}
        assert not slow.done()
        gate.opened.set()
        assert status_of(profile, await slow) == "0"


# --- GetCACert (C-01 to C-09) --------------------------------------------------------------------------------------


async def test_with_an_ra_the_bundle_holds_it_and_the_way_up_to_the_root(profile: Profile, site: Site) -> None:
    """C-02 to C-06: certs-only, the RA first, and nothing else (C-13)."""
    answer = await site.get("/scep?operation=GetCACert")

    assert answer.content_type == "application/x-x509-ca-ra-cert"
    signed = cms.ContentInfo.load(answer.body, strict=True)["content"]
    assert signed["version"].native == "v1"
    assert len(signed["digest_algorithms"]) == len(signed["signer_infos"]) == 0
    assert signed["encap_content_info"]["content"].native is None
    ra = profile.ra.certificate
    assert [each.dump() for each in signed["certificates"]] == [ra.der, *(each.der for each in profile.material.chain)]
    key = load_public_key(ra.spki)
    assert key.key_size >= 2048
    usages = [each.chosen.key_usage_value.native for each in signed["certificates"]]
    assert usages[0] == {"digital_signature", "key_encipherment"}
    assert usages[1] == usages[2] == {"key_cert_sign", "crl_sign"}


async def test_without_an_ra_it_is_the_one_certificate_and_enrolls(store: Store) -> None:
    """C-01: the CA speaks for itself."""
    profile = Profile(store=store, clock=Clock(), material=make_ca(scep_key_usage=True, name="single"), has_ra=False)
    async with serving(profile) as site:
        answer = await site.get("/scep?operation=GetCACert")
        assert (answer.content_type, answer.body) == ("application/x-x509-ca-cert", profile.material.chain[0].der)

        device = Device(site=site)
        assert issued(await device.enroll(await profile.challenge())).issuer == profile.material.chain[0].subject


async def test_without_a_rollover_there_is_no_next_ca(site: Site) -> None:
    """C-09: and it is not announced."""
    answer = await site.get("/scep?operation=GetNextCACert")

    assert (answer.status, answer.content_type) == (501, "text/plain")
    assert b"GetNextCACert" not in (await site.get(CAPS)).body


# --- enrolling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uses_get", [False, True])
async def test_a_device_enrolls(profile: Profile, site: Site, uses_get: bool) -> None:
    """By POST and by GET; the reply holds the issued certificate alone."""
    device = Device(site=site, uses_get=uses_get)

    answer = await device.enroll(await profile.challenge())

    assert issued(answer).spki == device.key.spki
    assert isinstance(answer, IssuedCertificate)
    assert answer.others == ()


async def test_the_chain_goes_along_where_a_profile_says_so(profile: Profile) -> None:
    """Cisco VPN clients want it; the issued certificate comes first, as scepclient takes the first for its own."""
    async with serving(replace(profile, sends_chain=True)) as site:
        octets = (await site.send("POST", "/scep", await message(profile, site))).body

    key = make_key("rsa-2048")._key
    assert isinstance(key, rsa.RSAPrivateKey)
    found = [*map(parse_certificate, certificates_of(read_reply(octets, profile.ra.certificate).open(key)[1]))]
    assert found[0].spki == make_key("rsa-2048").spki
    assert tuple(found[1:]) == profile.material.chain


async def test_every_reply_has_fresh_and_matching_nonces(profile: Profile, site: Site) -> None:
    """TX-1, TX-2, T-11: the same octets again get the same certificate under another senderNonce."""
    octets = await message(profile, site)

    replies = [read_reply((await site.send("POST", "/scep", octets)).body, profile.ra.certificate) for _ in range(3)]

    assert len({reply.attributes[oids.SENDER_NONCE] for reply in replies}) == 3
    assert len({reply.attributes[oids.RECIPIENT_NONCE] for reply in replies}) == 1
    assert len(await profile.store.list_certificates()) == 1


@pytest.mark.parametrize("transaction_id", ["1", "00:1B:44:11:3A:B7", "A" * 255, "ä@_*"])
async def test_the_transaction_id_comes_back_as_it_was(profile: Profile, site: Site, transaction_id: str) -> None:
    """TX-1: the client refuses any other."""
    device = Device(site=site, transaction_id=transaction_id)

    assert issued(await device.enroll(await profile.challenge()))


async def test_a_message_without_transaction_or_nonce_cannot_be_answered(profile: Profile, site: Site) -> None:
    """TX-2: HTTP says so."""
    key = ec_key()
    base = Message(key=key, signer=certificate(key), content=b"x")
    for oid in (oids.TRANSACTION_ID, oids.SENDER_NONCE):
        broken = replace(base, attributes={oid: ()}).encode()
        assert (await site.send("POST", "/scep", broken)).status == 400


async def test_what_a_device_is_refused_for_stays_in_the_log(profile: Profile, site: Site) -> None:
    """N-33 to N-36: wrong challenge, unknown device and disabled device give one and the same answer."""
    registry = replace(profile, authorizer=RegistryAuthorizer(profile.store, profile.clock))
    async with serving(registry) as strict:
        with capture_logs() as log:
            unknown = await Device(site=strict).enroll(await profile.challenge())
            wrong = await Device(site=strict, key=make_key("rsa-2048", "other device")).enroll("wrong")
            missing = await Device(site=strict, key=make_key("rsa-2048", "other device")).enroll(None)

    assert unknown == wrong == missing == Failed(fail_info=BAD_REQUEST, text=PUBLIC_TEXT["not_authorized"])
    refusals = [line for line in log if line["event"] == "request_refused"]
    assert [line["reason"] for line in refusals] == ["device not registered"] + [
        "the challenge is missing or unknown"
    ] * 2
    assert {line["source"] for line in refusals} == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("subject", "code"), [("O=Test", "identity"), ("serialNumber=FOC1234X0AB,UID=FOC9999X0ZZ", "identity")]
)
async def test_a_request_without_one_identity_is_a_bad_request(
    profile: Profile, site: Site, subject: str, code: str
) -> None:
    """N-37, N-49."""
    device = Device(site=site, subject=parse_name(subject))

    assert refusal(await device.enroll(await profile.challenge())) == (BAD_REQUEST, PUBLIC_TEXT[code])


async def test_two_challenges_in_one_request_are_a_bad_request(profile: Profile, site: Site) -> None:
    """N-33: neither is spent."""
    device, secret = Device(site=site), await profile.challenge()
    request = Request(key=device.key._key, subject=device.subject, attributes=(challenge(secret), challenge(secret)))
    transaction = await device.transaction()

    answer = await device.ask(transaction, transaction.enroll(request.encode()))

    assert refusal(answer) == (BAD_REQUEST, PUBLIC_TEXT["bad_request"])
    assert issued(await device.enroll(secret))


async def test_a_broken_signature_is_a_bad_message_check(profile: Profile, site: Site) -> None:
    """N-01: signed back, because transaction and signer are known."""
    octets = bytearray(await message(profile, site))
    octets[-1] ^= 1

    reply = read_reply((await site.send("POST", "/scep", bytes(octets))).body, profile.ra.certificate)

    assert reply.text(oids.PKI_STATUS) == "2"
    assert reply.text(oids.FAIL_INFO) == "1"
    assert reply.text(oids.FAIL_INFO_TEXT) == PUBLIC_TEXT["integrity"]
    assert reply.content == b""


async def test_broken_algorithms_are_logged_where_they_are_allowed(store: Store) -> None:
    """MD5 and DES under the legacy setting, each use a warning; without the setting badAlg (N-17, N-18)."""
    legacy = AlgorithmPolicy.of(sha1=True, des_and_md5=True)
    rules = ClientRules(digest=Digest.MD5, cipher=Cipher.DES)
    profile = Profile(store=store, clock=Clock(), policy=legacy)
    async with serving(profile) as site:
        with capture_logs() as log:
            assert issued(await Device(site=site, rules=rules).enroll(await profile.challenge()))
    async with serving(replace(profile, policy=AlgorithmPolicy())) as site:
        answer = await Device(site=site, rules=rules).enroll("whatever")

    assert [line["algorithms"] for line in log if line["event"] == "insecure_algorithm"] == ["md5,des-cbc"]
    assert refusal(answer) == (FailInfo.BAD_ALG, PUBLIC_TEXT["algorithm"])


# --- pending (T-01 to T-19) ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("uses_get", [False, True])
async def test_a_deferred_request_is_polled_for(
    profile: Profile, site: Site, aaa: ScriptedAuthorizer, uses_get: bool
) -> None:
    """T-01, T-02, T-03, T-19: PENDING until AAA agrees, then the certificate."""
    aaa.script = [WAIT, WAIT, Accept()]
    device = Device(site=site, uses_get=uses_get)
    transaction = await device.transaction()

    assert await device.ask(transaction, transaction.enroll(device.csr(await profile.challenge()))) == StillPending()
    assert await device.ask(transaction, transaction.poll()) == StillPending()
    assert issued(await device.ask(transaction, transaction.poll())).spki == device.key.spki


async def test_a_pending_reply_has_an_empty_envelope(profile: Profile, site: Site, aaa: ScriptedAuthorizer) -> None:
    """T-01, T-09: zero-length content, which every client reads, to the same octets again, too."""
    aaa.script = [WAIT]
    octets = await message(profile, site)

    for _ in range(2):
        reply = read_reply((await site.send("POST", "/scep", octets)).body, profile.ra.certificate)
        assert (reply.text(oids.PKI_STATUS), reply.content) == ("3", b"")
        assert oids.FAIL_INFO not in reply.attributes


async def test_a_denied_request_fails_at_the_next_poll(profile: Profile, site: Site, aaa: ScriptedAuthorizer) -> None:
    """T-04."""
    aaa.script = [WAIT, Reject(reason="stolen")]
    device = Device(site=site)
    transaction = await device.transaction()
    await device.ask(transaction, transaction.enroll(device.csr(await profile.challenge())))

    answer = await device.ask(transaction, transaction.poll())

    assert refusal(answer) == (BAD_REQUEST, PUBLIC_TEXT["not_authorized"])


async def test_a_poll_with_another_key_or_name_finds_what_is_its_own(
    profile: Profile, site: Site, aaa: ScriptedAuthorizer
) -> None:
    """T-05, T-06, T-07: the key and the transactionID decide, the names in the body are ignored."""
    aaa.script = [WAIT]
    device = Device(site=site, transaction_id="TX1")
    transaction = await device.transaction()
    await device.ask(transaction, transaction.enroll(device.csr(await profile.challenge())))

    stranger = replace(device, key=make_key("rsa-2048", "other device"))
    theirs = await stranger.transaction()
    theirs.enroll(stranger.csr("not sent"))
    assert refusal(await stranger.ask(theirs, theirs.poll())) == (BAD_REQUEST, PUBLIC_TEXT["transaction"])

    renamed = replace(device, subject=parse_name("CN=somebody else"))
    mine = await renamed.transaction()
    mine.enroll(renamed.csr("not sent"))
    assert await renamed.ask(mine, mine.poll()) == StillPending()


# --- renewal (R-01 to R-17) ----------------------------------------------------------------------------------------


def new_key() -> SoftwareKey:
    return make_key("rsa-2048", "other device")


async def renew(device: Device, *, as_pkcs_req: bool = False, subject: bytes | None = None) -> Answer:
    transaction = await device.transaction()
    csr = device.csr(key=new_key(), subject=subject)
    return await device.ask(transaction, transaction.renew(csr, as_pkcs_req=as_pkcs_req))


@pytest.mark.parametrize("as_pkcs_req", [False, True])
async def test_a_certificate_renews_itself(profile: Profile, site: Site, as_pkcs_req: bool) -> None:
    """R-01, R-02: as RenewalReq or PKCSReq; the reply opens with the old key, which the client has just proved."""
    device = Device(site=site)
    old = issued(await device.enroll(await profile.challenge()))

    new = issued(await renew(replace(device, certificate=old), as_pkcs_req=as_pkcs_req))

    assert (new.spki, new.subject) == (new_key().spki, old.subject)


async def test_a_renewal_with_the_same_key_is_a_new_certificate(profile: Profile) -> None:
    """R-03: scepclient's way, where the profile lets it."""
    async with serving(replace(profile, renewal=RenewalRules(allow_same_key=True))) as site:
        device = Device(site=site)
        old = issued(await device.enroll(await profile.challenge()))
        device = replace(device, certificate=old)
        transaction = await device.transaction()
        new = issued(await device.ask(transaction, transaction.renew(device.csr())))

    assert new.spki == old.spki
    assert new.certificate_serial != old.certificate_serial


async def test_a_stand_in_cannot_renew(profile: Profile, site: Site) -> None:
    """R-04: nor with a good challenge."""
    device = Device(site=site)
    transaction = await device.transaction()
    csr = device.csr(await profile.challenge())

    assert refusal(await device.ask(transaction, transaction.renew(csr))) == (BAD_REQUEST, PUBLIC_TEXT["bad_request"])


def forge(which: str) -> Certificate:
    """Return a certificate for the device's key that claims to be one of ours."""
    key, ca, other = make_key("rsa-2048"), make_ca("ec-p256"), make_ca("ec-p256", name="other")
    match which:
        case "another CA":
            return make_certificate(other, key.spki, subject=subject_of())
        case "another CA of the same name":
            issuer, issuer_key = ca.chain[0].subject, other.signer._key
        case "a device of ours":
            issuer, issuer_key = subject_of(), key._key
        case _:
            # Signed by our CA, which nobody told us.
            return make_certificate(ca, key.spki, subject=subject_of())
    return certificate(key._key, subject=subject_of(), issuer=issuer, issuer_key=issuer_key, certificate_serial=4711)


@pytest.mark.parametrize("issuer", ["another CA", "another CA of the same name", "a device of ours", "our CA"])
async def test_a_certificate_that_was_not_enrolled_here_does_not_renew(site: Site, issuer: str) -> None:
    """R-07, R-08."""
    device = Device(site=site, certificate=forge(issuer))

    assert refusal(await renew(device))[0] is BAD_REQUEST


async def test_the_cas_own_key_does_not_enroll(store: Store) -> None:
    """R-17: a CA or RA certificate signs no requests, even when its key is at hand."""
    material = make_ca(scep_key_usage=True, name="single")
    profile = Profile(store=store, clock=Clock(), material=material)
    async with serving(profile) as site:
        for key, mine in ((material.signer, material.chain[0]), (profile.ra.key, profile.ra.certificate)):
            device = Device(site=site, key=key, certificate=mine, subject=mine.subject)
            assert refusal(await renew(device)) == (BAD_REQUEST, PUBLIC_TEXT["renewal"])


async def test_a_renewal_for_another_name_is_refused(profile: Profile, site: Site) -> None:
    """R-09."""
    device = Device(site=site)
    old = issued(await device.enroll(await profile.challenge()))

    answer = await renew(replace(device, certificate=old), subject=subject_of("FOC9999X0ZZ"))

    assert refusal(answer) == (BAD_REQUEST, PUBLIC_TEXT["renewal"])


IDEVID = make_idevid(parse_name("serialNumber=PID:TST-1000 SN:FOC1234X0AB,CN=TST-1000"), extensions=(DEVICE_USAGE,))
MANUFACTURER = SignerTrust(manufacturers=[make_store()])
BRANCH = SignerTrust(registration_authorities=[RegistrationAuthority(name="branch", pinned=(IDEVID,))])


@pytest.mark.parametrize("trust", [MANUFACTURER, BRANCH], ids=["manufacturer", "RA"])
async def test_who_is_trusted_enrolls_without_a_challenge_and_polls(
    profile: Profile, aaa: ScriptedAuthorizer, trust: SignerTrust
) -> None:
    """R-13: the key of the request is certified, the reply opens with the one that signed."""
    aaa.script = [WAIT, Accept()]
    async with serving(replace(profile, trust=trust)) as site:
        device = Device(site=site, key=SoftwareKey(DEVICE_KEY), certificate=IDEVID)
        transaction = await device.transaction()
        assert await device.ask(transaction, transaction.enroll(device.csr(key=new_key()))) == StillPending()
        assert issued(await device.ask(transaction, transaction.poll())).spki == new_key().spki


async def test_the_chain_of_the_signer_may_come_along_in_any_order(profile: Profile, site: Site) -> None:
    """R-12: the signer is found by its issuer and serial, and its old key reads the reply."""
    device = Device(site=site)
    old = issued(await device.enroll(await profile.challenge()))
    envelope = Envelope(content=device.csr(key=new_key()), recipient=profile.ra.certificate).encode()
    old_key = device.key._key
    assert isinstance(old_key, rsa.RSAPrivateKey)
    renewal = Message(key=old_key, signer=old, content=envelope, message_type="17")

    for certificates in permutations((*profile.material.chain, old)):
        octets = replace(renewal, certificates=tuple(each.der for each in certificates)).encode()
        reply = read_reply((await site.send("POST", "/scep", octets)).body, profile.ra.certificate)
        assert reply.text(oids.PKI_STATUS) == "0"
        (der_certificate,) = certificates_of(reply.open(old_key)[1])
        assert parse_certificate(der_certificate).spki == new_key().spki


# --- queries (Q-01 to Q-07) ----------------------------------------------------------------------------------------


async def test_a_holder_fetches_a_certificate_and_the_crl(profile: Profile, site: Site) -> None:
    """Q-01, Q-03, Q-05: under one transactionID for ever, as sscep has it."""
    device = Device(site=site)
    mine = issued(await device.enroll(await profile.challenge()))
    device = replace(device, certificate=mine, transaction_id="SSCEP transactionId")

    for _ in range(2):
        transaction = await device.transaction()
        found = await device.ask(transaction, transaction.get_certificate(mine.issuer, mine.certificate_serial))
        assert issued(found) == mine
        transaction = await device.transaction()
        crl = await device.ask(transaction, transaction.get_crl(mine))
        assert isinstance(crl, RetrievedCRL)
        assert crl.crl.startswith(b"\x30")


@pytest.mark.parametrize("certificate_serial", [1, -1, 1 << 319])
async def test_a_serial_that_is_not_ours_is_a_bad_cert_id(
    profile: Profile, site: Site, certificate_serial: int
) -> None:
    """Q-02, Q-08: also one that no certificate can have."""
    device = Device(site=site)
    mine = issued(await device.enroll(await profile.challenge()))
    device = replace(device, certificate=mine)
    transaction = await device.transaction()

    answer = await device.ask(transaction, transaction.get_certificate(mine.issuer, certificate_serial))

    assert refusal(answer) == (FailInfo.BAD_CERT_ID, PUBLIC_TEXT["certificate"])


async def test_a_crl_of_another_issuer_is_a_bad_cert_id(profile: Profile, site: Site) -> None:
    """Q-04."""
    device = Device(site=site)
    mine = issued(await device.enroll(await profile.challenge()))
    device = replace(device, certificate=mine)
    transaction = await device.transaction()
    foreign = make_certificate(make_ca("ec-p256", name="other"), device.key.spki)

    answer = await device.ask(transaction, transaction.get_crl(foreign))

    assert refusal(answer) == (FailInfo.BAD_CERT_ID, PUBLIC_TEXT["certificate"])


async def test_strangers_may_not_ask(site: Site) -> None:
    """Q-06: stand-ins, also one with a serial as long as sscep's."""
    device = Device(site=site)
    long_serial = certificate(device.key._key, subject=device.subject, certificate_serial=1 << 255)
    for signer in (None, long_serial):
        device = replace(device, certificate=signer)
        transaction = await device.transaction()
        answer = await device.ask(transaction, transaction.get_certificate(name("x"), 1))
        assert refusal(answer) == (BAD_REQUEST, PUBLIC_TEXT["not_authorized"])


# --- the password-based envelope -----------------------------------------------------------------------------------


@pytest.fixture
def ec_profile(profile: Profile) -> Profile:
    return replace(profile, policy=AlgorithmPolicy.of(password_envelope=True), is_sealed=True)


def ec_device(site: Site, password: str) -> Device:
    return Device(site=site, key=make_key("ec-p256"), password=password.encode())


async def test_an_ec_key_enrolls_under_its_challenge(ec_profile: Profile, aaa: ScriptedAuthorizer) -> None:
    """W-01: request, polls and certificate are closed with the secret that nobody else has."""
    aaa.script = [WAIT, WAIT, Accept()]
    await ec_profile.challenge("OTHER1")
    secret = await ec_profile.challenge()
    await ec_profile.challenge("OTHER2")
    async with serving(ec_profile) as site:
        device = ec_device(site, secret)
        transaction = await device.transaction()

        assert await device.ask(transaction, transaction.enroll(device.csr(secret))) == StillPending()
        assert await device.ask(transaction, transaction.poll()) == StillPending()
        assert issued(await device.ask(transaction, transaction.poll())).spki == device.key.spki


async def test_polls_under_a_challenge_outlive_it(ec_profile: Profile, aaa: ScriptedAuthorizer) -> None:
    """Approval takes longer than a challenge lives, and meanwhile others are made; the transaction keeps its own."""
    aaa.script = [WAIT, Accept()]
    secret = await ec_profile.challenge()
    async with serving(ec_profile) as site:
        device = ec_device(site, secret)
        transaction = await device.transaction()
        assert await device.ask(transaction, transaction.enroll(device.csr(secret))) == StillPending()
        ec_profile.clock.advance(2 * DAY)
        for number in range(20):
            await ec_profile.challenge(f"OTHER{number}")

        assert issued(await device.ask(transaction, transaction.poll())).spki == device.key.spki


async def test_a_wrong_password_opens_nothing(ec_profile: Profile) -> None:
    """W-02: and is told like any message that does not hold."""
    await ec_profile.challenge()
    async with serving(ec_profile) as site:
        answer = await ec_device(site, "wrong").enroll("wrong")

    assert refusal(answer) == (FailInfo.BAD_MESSAGE_CHECK, PUBLIC_TEXT["integrity"])


async def test_a_password_of_another_profile_opens_nothing(ec_profile: Profile) -> None:
    """Candidates are those of the profile that was asked."""
    secret = await replace(ec_profile, name="lab").challenge()
    async with serving(ec_profile) as site:
        answer = await ec_device(site, secret).enroll(secret)

    assert refusal(answer) == (FailInfo.BAD_MESSAGE_CHECK, PUBLIC_TEXT["integrity"])


async def test_the_challenge_inside_must_be_good_as_well(ec_profile: Profile) -> None:
    """Opening the envelope authorizes nobody."""
    secret = await ec_profile.challenge()
    async with serving(ec_profile) as site:
        answer = await ec_device(site, secret).enroll("another")

    assert refusal(answer) == (BAD_REQUEST, PUBLIC_TEXT["not_authorized"])


async def test_without_the_setting_an_ec_signer_is_a_bad_algorithm(profile: Profile, site: Site) -> None:
    """W-05."""
    secret = await profile.challenge()

    assert refusal(await ec_device(site, secret).enroll(secret)) == (FailInfo.BAD_ALG, PUBLIC_TEXT["algorithm"])


async def test_without_a_seal_there_are_no_passwords_to_try(ec_profile: Profile) -> None:
    """A profile that was given none keeps none."""
    secret = await ec_profile.challenge()
    async with serving(replace(ec_profile, is_sealed=False)) as site:
        answer = await ec_device(site, secret).enroll(secret)

    assert refusal(answer)[0] is FailInfo.BAD_MESSAGE_CHECK


# --- two profiles --------------------------------------------------------------------------------------------------


async def test_profiles_do_not_honour_each_others_challenges_and_certificates(profile: Profile) -> None:
    """They share store, CA and RA here, and nothing that counts."""
    lab = replace(profile, name="lab")
    async with serving(profile, lab) as site:
        at_home, at_lab = Device(site=site), Device(site=site, path="/scep/lab")
        secret = await lab.challenge()

        assert refusal(await at_home.enroll(secret)) == (BAD_REQUEST, PUBLIC_TEXT["not_authorized"])
        old = issued(await at_lab.enroll(secret))
        assert refusal(await renew(replace(at_home, certificate=old))) == (BAD_REQUEST, PUBLIC_TEXT["renewal"])
        stranger = replace(at_home, certificate=old)
        transaction = await stranger.transaction()
        query = transaction.get_certificate(old.issuer, old.certificate_serial)
        assert refusal(await stranger.ask(transaction, query)) == (BAD_REQUEST, PUBLIC_TEXT["not_authorized"])
        assert issued(await renew(replace(at_lab, certificate=old)))


# --- when something is out of order --------------------------------------------------------------------------------


async def test_too_much_work_is_put_off_before_it_is_begun(profile: Profile, ca: ScriptedCA) -> None:
    """503 with Retry-After, also for the cheapest; when the work is done, all is as before."""
    gate = Gate()
    ca.script = [gate]
    async with serving(profile, max_at_work=1) as site:
        octets = await message(profile, site)
        slow = asyncio.ensure_future(site.send("POST", "/scep", octets))
        await gate.entered.wait()
        with capture_logs() as log:
            busy = await site.get(CAPS)
        gate.opened.set()

        assert (busy.status, busy.headers["Retry-After"], busy.body) == (503, "5", b"busy\n")
        assert [line["event"] for line in log] == ["overloaded"]
        assert status_of(profile, await slow) == "0"
        assert (await site.get(CAPS)).status == 200


async def test_a_backend_that_is_away_is_said_in_http(profile: Profile, site: Site, aaa: ScriptedAuthorizer) -> None:
    """N-52: no CertRep, which would end the transaction; the reason is for the operator."""
    aaa.script = [Unavailable("no answer from radius.example"), Accept()]
    octets = await message(profile, site)

    with capture_logs() as log:
        answer = await site.send("POST", "/scep", octets)

    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert answer.body == b"try again later\n"
    assert log[-1]["reason"] == "no answer from radius.example"
    assert status_of(profile, await site.send("POST", "/scep", octets)) == "0"


async def test_a_ca_that_is_away_is_pending(profile: Profile, site: Site, ca: ScriptedCA) -> None:
    """N-53: the challenge is spent, so the device must come back under this transaction."""
    ca.script = [fail(Unavailable("away")), lambda authority, order: authority.issue(order)]
    octets = await message(profile, site)

    assert status_of(profile, await site.send("POST", "/scep", octets)) == "3"
    assert status_of(profile, await site.send("POST", "/scep", octets)) == "0"


async def test_a_bug_is_a_number_to_the_peer_and_a_traceback_in_the_log(
    profile: Profile, site: Site, aaa: ScriptedAuthorizer
) -> None:
    """The process lives on."""
    aaa.script = [KeyError("internal detail"), Accept()]
    octets = await message(profile, site)

    with capture_logs() as log:
        answer = await site.send("POST", "/scep", octets)

    (line,) = [line for line in log if line["event"] == "internal_error"]
    assert re.fullmatch("[0-9a-f]{8}", line["incident"])
    assert (answer.status, answer.body) == (500, f"internal error, incident {line['incident']}\n".encode())
    assert line["exc_info"]
    assert status_of(profile, await site.send("POST", "/scep", octets)) == "0"
