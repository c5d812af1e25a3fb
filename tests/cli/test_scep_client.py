"""Claims about `scep-ra enroll`, `getca` and `getcaps`, against the server core behind somebody else's HTTP."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scep_ra.cli.key_files import read_certificate, read_key
from scep_ra.cli.output import pem
from scep_ra.pki import oids
from scep_ra.pki.algorithms import Cipher, Digest
from scep_ra.pki.general_names import encode_general_names, parse_general_names, read_general_name
from scep_ra.pki.names import format_name
from scep_ra.pki.profiles import CertificateProfile, KeyUsage
from scep_ra.pki.signed_data import MessageSigner, build_certs_only
from scep_ra.scep.client import REPLY_LIMITS
from scep_ra.scep.http_binding import ScepCall, ScepReply
from scep_ra.scep.message import pki_status
from scep_ra.scep.policy import AlgorithmPolicy
from scep_ra.scep.server import PKIEvent, PollRequested
from scep_ra.scep.standing import ByManufacturer, SignerTrust
from scep_ra.scep.terms import (
    CA_CAPS_TYPE,
    CA_RA_CERT_TYPE,
    PKI_MESSAGE_TYPE,
    FailInfo,
    MessageType,
    Operation,
    PKIStatus,
)
from tests.support.command_line import CommandLine
from tests.support.key_files import write_key
from tests.support.manufacturer import DEVICE_KEY, SUB, make_idevid, make_store
from tests.support.pki import make_ca, make_certificate, make_key
from tests.support.scep_pair import CHALLENGE, ScepPair, forge, make_server
from tests.support.scep_service import ScepService, serving, silent

SUBJECT = ("--subject", "O=Test,serialNumber=FOC1234X0AB,CN=router-1")
REQUEST = (*SUBJECT, "--challenge", CHALLENGE)
FAST = ("--poll-interval", "0.01")


@pytest.fixture(autouse=True)
def no_challenge_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCEP_RA_CHALLENGE", raising=False)


@pytest.fixture
def service() -> Iterator[ScepService]:
    """Return a running service."""
    service = ScepService()
    with serving(service.answer) as service.url:
        yield service


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def key_file(directory: Path, key_type: str = "rsa-2048", owner: str = "scep client") -> str:
    """Return a file with a key, so that not every test waits for a new one."""
    path = directory / f"{owner}.pem"
    path.write_bytes(make_key(key_type, owner).private_pem())
    return str(path)


# --- enroll --------------------------------------------------------------------------------------------------------


def test_a_new_key_and_its_certificate_are_written(scep_ra: CommandLine, service: ScepService, out: Path) -> None:
    """The key for its owner alone; the certificate fits it; the CA stands beside."""
    outcome = scep_ra.ok("enroll", service.url, *REQUEST, "-o", str(out))
    key, certificate = read_key(out / "device.key"), read_certificate(out / "device.pem")
    assert (out / "device.key").stat().st_mode & 0o777 == 0o600
    assert certificate.spki == key.spki
    assert outcome.out.startswith(f"{out / 'device.pem'}: O=Test,serialNumber=FOC1234X0AB,CN=router-1, serial ")
    assert read_certificate(out / "ca.pem") == service.pair.ca.chain[0]
    assert sorted(path.name for path in out.iterdir()) == ["ca.pem", "device.key", "device.pem"]
    (request,) = service.requests
    assert request.csr.challenge_password == CHALLENGE
    assert (request.reply_to.digest, request.reply_to.cipher) == (Digest.SHA512, Cipher.AES128)
    assert f"believed as it came: {service.pair.ca.chain[0].fingerprint()}" in outcome.err


def test_the_fingerprint_of_the_ca_makes_it_trusted(scep_ra: CommandLine, service: ScepService, out: Path) -> None:
    """And any other ends the matter before a key is made."""
    key = key_file(out.parent)
    right, wrong = service.pair.ca.chain[1].fingerprint(), make_ca(name="other").chain[1].fingerprint()
    outcome = scep_ra("enroll", service.url, *REQUEST, "-o", str(out), "--fingerprint", wrong)
    assert outcome.status == 1
    assert "do not trust this server" in outcome.err
    assert not out.exists()
    outcome = scep_ra.ok("enroll", service.url, *REQUEST, "-o", str(out), "--fingerprint", right, "--key", key)
    assert not outcome.err


def test_an_ec_key_is_enrolled_with_its_challenge(scep_ra: CommandLine, service: ScepService, out: Path) -> None:
    """RFC 8894 3.1."""
    service.pending = 1
    scep_ra.ok("enroll", service.url, *REQUEST, *FAST, "-o", str(out), "--key-type", "ec-p256")
    assert read_certificate(out / "device.pem").spki == read_key(out / "device.key").spki


def test_an_ec_key_without_a_challenge_leaves_nothing_behind(
    scep_ra: CommandLine, service: ScepService, out: Path
) -> None:
    """No request, no file."""
    outcome = scep_ra("enroll", service.url, *SUBJECT, "-o", str(out), "--key-type", "ec-p256")
    assert outcome.status == 1
    assert "an EC key needs a challenge" in outcome.err
    assert not out.exists()


@pytest.mark.parametrize("source", ["environment", "file", "standard input", "nowhere"])
def test_the_challenge_need_not_stand_in_the_process_list(
    scep_ra: CommandLine, service: ScepService, out: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """Environment, file, standard input; or there is none."""
    file = out.parent / "challenge"
    file.write_text(CHALLENGE + "\n")
    options: tuple[str, ...] = ()
    match source:
        case "environment":
            monkeypatch.setenv("SCEP_RA_CHALLENGE", CHALLENGE)
        case "file":
            options = ("--challenge-file", str(file))
        case "standard input":
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(CHALLENGE.encode() + b"\r\n")))
            options = ("--challenge-file", "-")
    key = key_file(out.parent)
    outcome = scep_ra.ok("enroll", service.url, *SUBJECT, "-o", str(out), "--key", key, *options)
    assert service.requests[0].csr.challenge_password == (None if source == "nowhere" else CHALLENGE)
    assert CHALLENGE not in outcome.out + outcome.err


def test_names_are_asked_for(scep_ra: CommandLine, service: ScepService, out: Path) -> None:
    """As subjectAltName of the request."""
    names = ("dns:r1.example", "uri:urn:imei:490154203237518", "ip:192.0.2.1", "email:a@example.org")
    options = [option for name in names for option in ("--san", name)]
    scep_ra.ok("enroll", service.url, *REQUEST, *options, "-o", str(out), "--key", key_file(out.parent))
    asked = service.requests[0].csr.subject_alt_name
    assert asked is not None
    assert tuple(map(str, parse_general_names(asked))) == names


def test_a_waiting_request_is_polled_for(scep_ra: CommandLine, service: ScepService, out: Path) -> None:
    """Until it is issued."""
    service.pending = 2
    scep_ra.ok("enroll", service.url, *REQUEST, *FAST, "-o", str(out), "--key", key_file(out.parent))
    assert sum(isinstance(event, PollRequested) for event in service.events) == 2


def test_a_request_that_waits_too_long_can_be_taken_up_again(
    scep_ra: CommandLine, service: ScepService, out: Path
) -> None:
    """Exit status 4; the key is there, and with it the same transaction goes on."""
    service.pending = 1
    outcome = scep_ra("enroll", service.url, *REQUEST, "--max-poll-time", "0", "-o", str(out))
    assert outcome.status == 4
    assert f"call again with --key {out / 'device.key'}" in outcome.err
    assert not (out / "device.pem").exists()
    again = scep_ra("enroll", service.url, *REQUEST, "-o", str(out))
    assert again.status == 2
    assert f"use it with --key {out / 'device.key'}" in again.err
    scep_ra.ok("enroll", service.url, *REQUEST, "-o", str(out), "--key", str(out / "device.key"))
    first, second = service.requests
    assert first.csr.der == second.csr.der
    assert first.reply_to.transaction_id == second.reply_to.transaction_id


@pytest.mark.parametrize(
    ("info", "advice"),
    [
        (FailInfo.BAD_ALG, "getcaps"),
        (FailInfo.BAD_MESSAGE_CHECK, "verify or decrypt"),
        (FailInfo.BAD_REQUEST, "are challenge and subject right"),
        (FailInfo.BAD_TIME, "clocks"),
        (FailInfo.BAD_CERT_ID, "knows no such"),
    ],
)
def test_a_refusal_comes_with_advice(
    scep_ra: CommandLine, service: ScepService, out: Path, info: FailInfo, advice: str
) -> None:
    """What to look at first, and the server's own words without their control characters."""
    service.decide = lambda event: service.core.failure(event.reply_to, info, "no\x1b[2J")
    outcome = scep_ra("enroll", service.url, *REQUEST, "-o", str(out), "--key", key_file(out.parent))
    assert outcome.status == 1
    assert advice in outcome.err
    assert "the server refuses the request: 'no\\x1b[2J' (" in outcome.err


def test_a_refusal_without_reason_is_told_so(scep_ra: CommandLine, out: Path) -> None:
    """Dogtag's private numbers, for one."""
    pair = ScepPair()
    service = ScepService(pair)
    signer = MessageSigner(pair.ra.key, pair.ra.certificate)

    def answer(call: ScepCall) -> ScepReply:
        if call.operation is not Operation.PKI_OPERATION:
            return service.answer(call)
        body = forge(call, signer, extra=(pki_status(PKIStatus.FAILURE),))
        return ScepReply(content_type=PKI_MESSAGE_TYPE, body=body)

    with serving(answer) as url:
        outcome = scep_ra("enroll", url, *REQUEST, "-o", str(out), "--key", key_file(out.parent))
    assert outcome.status == 1
    assert outcome.err.endswith("the server refuses the request: it gives no reason that RFC 8894 knows\n")


# --- renewal -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("announced", [True, False])
def test_a_certificate_is_renewed_under_its_subject_and_names(
    scep_ra: CommandLine, service: ScepService, out: Path, announced: bool
) -> None:
    """With RenewalReq where the server announces it, with PKCSReq elsewhere."""
    if not announced:
        caps = b"AES\nSHA-256\n"
        service.overrides[Operation.GET_CA_CAPS] = ScepReply(content_type=CA_CAPS_TYPE, body=caps)
    old_key = make_key("rsa-2048", "scep client")
    names = encode_general_names([read_general_name("dns:r1.example")])
    old = make_certificate(service.pair.ca, old_key.spki, subject_alt_name=names)
    certificate = out.parent / "old.pem"
    certificate.write_bytes(pem([old.der]))
    options = ("--renew", str(certificate), "--renew-key", key_file(out.parent))
    new = key_file(out.parent, owner="scep client's next key")
    scep_ra.ok("enroll", service.url, *options, "--key", new, "--cert-out", str(out / "new.pem"))
    (request,) = service.requests
    assert request.message_type is (MessageType.RENEWAL_REQ if announced else MessageType.PKCS_REQ)
    assert request.reply_to.signer == old
    assert request.csr.subject == old.subject
    assert request.csr.subject_alt_name == old.extension(oids.SUBJECT_ALT_NAME)
    assert read_certificate(out / "new.pem").spki == read_key(Path(new)).spki
    assert (out / "ca.pem").exists()


def test_a_certificate_is_not_renewed_with_another_key(scep_ra: CommandLine, service: ScepService, out: Path) -> None:
    """Told here, where the server could only say that the signature is wrong."""
    certificate = out.parent / "old.pem"
    certificate.write_bytes(pem([make_certificate(service.pair.ca, make_key().spki).der]))
    key = key_file(out.parent)
    outcome = scep_ra("enroll", service.url, "--renew", str(certificate), "--renew-key", key, "-o", str(out))
    assert outcome.status == 2
    assert f"{key}: is not the key of the certificate in {certificate}" in outcome.err
    assert not service.events


# --- signed by another CA's certificate ----------------------------------------------------------------------------


@pytest.mark.parametrize("enclosed", [True, False])
def test_a_device_enrolls_with_the_certificate_of_its_manufacturer(
    scep_ra: CommandLine, out: Path, enclosed: bool
) -> None:
    """An IDevID signs in place of a challenge; CAs that stand behind it in its file go along."""
    store = make_store(intermediates=() if enclosed else (SUB,))
    service = ScepService(ScepPair(trust=SignerTrust(manufacturers=[store])))
    idevid, key = out.parent / "idevid.pem", write_key(out.parent / "idevid.key", DEVICE_KEY)
    idevid.write_bytes(pem([make_idevid().der, SUB.der] if enclosed else [make_idevid().der]))
    new = key_file(out.parent)
    with serving(service.answer) as url:
        signer = ("--signer-cert", str(idevid), "--signer-key", str(key))
        scep_ra.ok("enroll", url, *SUBJECT, *signer, "--key", new, "-o", str(out))
    (request,) = service.requests
    assert request.message_type is MessageType.PKCS_REQ
    assert request.reply_to.standing == ByManufacturer(store="acme")
    assert request.csr.challenge_password is None
    assert read_certificate(out / "device.pem").spki == read_key(Path(new)).spki == request.csr.spki


# --- the command line ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("ftp://x", *SUBJECT), "does not begin with http://"),
        (("http://x",), "--subject says whose certificate"),
        (("http://x", "--subject", "CN"), "write KEY=value"),
        (("http://x", *SUBJECT, "--san", "x"), "KIND:VALUE"),
        (("http://x", *SUBJECT, "--fingerprint", "00"), "64 (SHA-256) or 40"),
        (("http://x", *SUBJECT, "--renew", "old.pem"), "--renew and --renew-key go together"),
        (("http://x", *SUBJECT, "--signer-cert", "a.pem"), "--signer-cert and --signer-key go together"),
        (
            ("http://x", "--renew", "a", "--renew-key", "b", "--signer-cert", "c", "--signer-key", "d"),
            "give --renew or --signer-cert, not both",
        ),
        (("http://x", *SUBJECT, "--challenge", "a", "--challenge-file", "-"), "not both"),
        (("http://x", *SUBJECT, "--key", "/nonexistent"), "/nonexistent: cannot be read: No such file"),
    ],
)
def test_a_wrong_command_line_is_told_with_the_mend(scep_ra: CommandLine, options: tuple[str, ...], text: str) -> None:
    """Exit status 2, and nothing is sent."""
    outcome = scep_ra("enroll", *options)
    assert outcome.status == 2
    assert text in outcome.err


@pytest.mark.parametrize("name", ["device.pem", "ca.pem"])
def test_files_are_replaced_by_force_only(scep_ra: CommandLine, service: ScepService, out: Path, name: str) -> None:
    """Nothing is sent either: a certificate that cannot be kept is one wasted."""
    out.mkdir()
    (out / name).write_text("precious")
    command = ("enroll", service.url, *REQUEST, "-o", str(out), "--key", key_file(out.parent))
    outcome = scep_ra(*command)
    assert outcome.status == 2
    assert f"{out / name}: exists already" in outcome.err
    assert not service.events
    assert (out / name).read_text() == "precious"
    scep_ra.ok(*command, "--force")
    assert (out / name).read_text() != "precious"


def test_a_directory_that_cannot_be_made_is_named(scep_ra: CommandLine, service: ScepService, out: Path) -> None:
    """Before the request: the new key has to be safe first."""
    out.write_text("a file")
    outcome = scep_ra("enroll", service.url, *REQUEST, "-o", str(out / "below"), "--key-type", "ec-p256")
    assert outcome.status == 2
    assert f"{out / 'below' / 'device.key'}: cannot be written: Not a directory" in outcome.err
    assert not service.events


# --- servers in trouble --------------------------------------------------------------------------------------------


def closed_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/scep"


def test_a_server_that_is_not_there_is_unavailable(scep_ra: CommandLine, out: Path) -> None:
    """Exit status 3, one line."""
    url = closed_port()
    outcome = scep_ra("enroll", url, *REQUEST, "-o", str(out))
    assert outcome.status == 3
    assert outcome.err == f"scep-ra: {url} cannot be reached: Connection refused; check host, port and network\n"
    assert not out.exists()


def test_a_server_that_does_not_answer_is_unavailable(scep_ra: CommandLine) -> None:
    """After --timeout."""
    with silent() as url:
        outcome = scep_ra("getcaps", url, "--timeout", "0.05")
    assert outcome.status == 3
    assert "does not answer in time" in outcome.err


@pytest.mark.parametrize(
    ("reply", "status", "text"),
    [
        (ScepReply(content_type="text/plain", body=b"", status=404), 1, "answers GetCACert with HTTP 404: check the"),
        (ScepReply(content_type="text/plain", body=b"", status=501), 1, "does not offer GetCACert"),
        (ScepReply(content_type="text/plain", body=b"", status=503), 3, "try again later"),
        (ScepReply(content_type="text/plain", body=b"", status=0), 3, "breaks off"),
        (ScepReply(content_type="text/html", body=b"<html>"), 1, "with a web page"),
        (ScepReply(content_type="text/plain", body=b"no"), 1, "holds no certificate"),
        (ScepReply(content_type="text/plain", body=bytes(REPLY_LIMITS.max_bytes + 1)), 1, "more than"),
    ],
)
def test_what_is_wrong_with_a_server_is_one_line(
    scep_ra: CommandLine, service: ScepService, reply: ScepReply, status: int, text: str
) -> None:
    """3 where the same command may work later, 1 elsewhere."""
    service.overrides[Operation.GET_CA_CERT] = reply
    outcome = scep_ra("getca", service.url)
    assert outcome.status == status
    assert text in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_name_that_does_not_resolve_is_unavailable(scep_ra: CommandLine) -> None:
    """The resolver has no errno."""
    outcome = scep_ra("getcaps", "http://scep.invalid/")
    assert outcome.status == 3
    assert "http://scep.invalid/ cannot be reached: " in outcome.err


# --- algorithms ----------------------------------------------------------------------------------------------------


WEAK = ScepReply(content_type="text/plain", body=b"", status=404)


def test_a_server_without_capabilities_is_refused_unless_one_says_what_it_speaks(
    scep_ra: CommandLine, service: ScepService, out: Path
) -> None:
    """By naming digest and cipher, or by --allow-weak."""
    service.overrides[Operation.GET_CA_CAPS] = WEAK
    command = ("enroll", service.url, *REQUEST, "-o", str(out), "--key", key_file(out.parent), "--force")
    outcome = scep_ra(*command)
    assert outcome.status == 1
    assert "does not announce SHA-256 and AES" in outcome.err
    scep_ra.ok(*command, "--digest", "sha256", "--cipher", "aes256-cbc")
    scep_ra.ok(*command, "--allow-weak")
    spoken = [(request.reply_to.digest, request.reply_to.cipher) for request in service.requests]
    assert spoken == [(Digest.SHA256, Cipher.AES256), (Digest.SHA1, Cipher.TRIPLE_DES)]


def test_weak_algorithms_can_be_asked_for_by_name(scep_ra: CommandLine, service: ScepService, out: Path) -> None:
    """And the answer may be as weak."""
    command = ("enroll", service.url, *REQUEST, "-o", str(out), "--key", key_file(out.parent))
    scep_ra.ok(*command, "--digest", "sha1", "--cipher", "des-ede3-cbc")
    (request,) = service.requests
    assert (request.reply_to.digest, request.reply_to.cipher) == (Digest.SHA1, Cipher.TRIPLE_DES)


def test_an_answer_weaker_than_the_request_needs_allow_weak(
    scep_ra: CommandLine, service: ScepService, out: Path
) -> None:
    """The scepserver of micromdm answers in SHA-1 and DES, whatever it announces."""

    def decide(event: PKIEvent) -> ScepReply:
        weak = replace(event.reply_to, digest=Digest.SHA1, cipher=Cipher.DES)
        return service.core.success(weak, [service.pair.issue(make_key("rsa-2048", "scep client").spki)])

    service.decide = decide
    command = ("enroll", service.url, *REQUEST, "-o", str(out), "--key", key_file(out.parent))
    outcome = scep_ra(*command)
    assert outcome.status == 1
    assert "digest sha1 is not allowed: give --allow-weak if this server knows no better" in outcome.err
    scep_ra.ok(*command, "--allow-weak")


def test_an_answer_that_does_not_hold_is_an_error(scep_ra: CommandLine, service: ScepService, out: Path) -> None:
    """What is wrong with it is the client core's to say."""
    service.decide = lambda event: service.core.pending(replace(event.reply_to, transaction_id="another"))
    outcome = scep_ra("enroll", service.url, *REQUEST, "-o", str(out), "--key", key_file(out.parent))
    assert outcome.status == 1
    assert outcome.err.endswith("the answer belongs to another transaction: its transactionID is not ours\n")


# --- getcaps and getca ---------------------------------------------------------------------------------------------


def test_capabilities_are_shown_with_what_follows(scep_ra: CommandLine, service: ScepService) -> None:
    """A word a line, strange ones marked."""
    body = b"AES\nSHA-256\nUpdate\x1b\nPOSTPKIOperation\nRenewal\n"
    service.overrides[Operation.GET_CA_CAPS] = ScepReply(content_type=CA_CAPS_TYPE, body=body)
    lines = scep_ra.ok("getcaps", service.url).out.splitlines()
    assert lines[:-1] == ["AES", "POSTPKIOperation", "Renewal", "SHA-256", "'Update\\x1b' (not in RFC 8894)"]
    assert lines[-1] == "a client uses sha256, aes128-cbc, POST, renews with RenewalReq"
    found = scep_ra.ok("getcaps", service.url, "--json").json
    assert found["capabilities"] == ["AES", "POSTPKIOperation", "Renewal", "SHA-256", "Update\x1b"]
    assert (found["digest"], found["cipher"], found["post"], found["renewal"]) == ("sha256", "aes128-cbc", True, True)


def test_a_server_that_announces_nothing_is_shown_so(scep_ra: CommandLine, service: ScepService) -> None:
    """GET and PKCSReq are what is left."""
    service.overrides[Operation.GET_CA_CAPS] = ScepReply(content_type=CA_CAPS_TYPE, body=b"")
    out = scep_ra.ok("getcaps", service.url).out
    assert out == "a client uses sha1, des-ede3-cbc, GET, renews with PKCSReq\n"


def test_certificates_are_shown_by_role(scep_ra: CommandLine, service: ScepService) -> None:
    """With fingerprints to compare."""
    records = scep_ra.ok("getca", service.url, "--json", "--ca-identifier", "any").json
    assert [record["role"] for record in records] == ["signs answers, receives requests", "issues", ""]
    assert records[1]["sha256"] == service.pair.ca.chain[0].fingerprint()
    assert records[0]["subject"] == format_name(service.pair.ra.certificate.subject)


def test_certificates_are_written_for_other_clients(scep_ra: CommandLine, service: ScepService, out: Path) -> None:
    """CA with its chain, RA; a second time only by force, and only with the right fingerprint."""
    command = ("getca", service.url, "-o", str(out), "--fingerprint")
    right, wrong = service.pair.ca.chain[0].fingerprint("sha1"), "0" * 40
    assert scep_ra(*command, wrong).status == 1
    assert not out.exists()
    scep_ra.ok(*command, right)
    assert sorted(path.name for path in out.iterdir()) == ["ca.pem", "ra.pem"]
    assert (out / "ca.pem").read_text().count("BEGIN") == 2
    assert read_certificate(out / "ra.pem") == service.pair.ra.certificate
    assert "exists already" in scep_ra(*command, right).err
    scep_ra.ok(*command, right, "--force")


def test_a_ca_without_ra_is_one_file(scep_ra: CommandLine, out: Path) -> None:
    """It has all the roles."""
    pair = ScepPair()
    pair.server = make_server(make_ca(tiers=1), None, AlgorithmPolicy())
    with serving(ScepService(pair).answer) as url:
        scep_ra.ok("getca", url, "-o", str(out))
    assert [path.name for path in out.iterdir()] == ["ca.pem"]


def test_two_ra_certificates_are_two_files(scep_ra: CommandLine, service: ScepService, out: Path) -> None:
    """One to verify with, one to encrypt to."""
    ca = service.pair.ca
    certificates = [
        make_certificate(
            ca, make_key(owner=usage.name).spki, profile=CertificateProfile(key_usage=(usage,), extended_key_usage=())
        )
        for usage in (KeyUsage.DIGITAL_SIGNATURE, KeyUsage.KEY_ENCIPHERMENT)
    ]
    body = build_certs_only(each.der for each in (*certificates, *ca.chain))
    service.overrides[Operation.GET_CA_CERT] = ScepReply(content_type=CA_RA_CERT_TYPE, body=body)
    scep_ra.ok("getca", service.url, "-o", str(out))
    assert read_certificate(out / "ra.pem") == certificates[0]
    assert read_certificate(out / "ra-encryption.pem") == certificates[1]
