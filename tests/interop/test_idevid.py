"""Claims about devices that enroll by who they are: an IDevID re-certified, an RA that asks for others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scep_ra.cli.key_files import read_certificate
from scep_ra.cli.output import pem
from scep_ra.pki import oids
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.names import format_name, parse_name
from tests.support.key_files import write_key
from tests.support.keys import PrivateKey, rsa_key
from tests.support.manufacturer import DEVICE_KEY, DEVICE_SERIAL, LIFETIME, ROOT, SUB, make_idevid
from tests.support.scep_messages import Envelope, Message, Request, certificate
from tests.support.scep_replies import read_reply
from tests.support.server import RunningServer, make_data_directory, running_server

NEW_KEY = rsa_key("LDevID")
RA_KEY = rsa_key("branch RA")
BRANCH_RA = certificate(RA_KEY, subject=parse_name("CN=branch"), validity=LIFETIME)
TOML = """
[trust.acme]
certificates = ["acme.pem"]
intermediates = ["acme.pem"]
products = ["TST-*"]

[trust.branch]
type = "ra"
certificates = ["branch.pem"]

[profile.default]
challenge = "none"
manufacturers = ["acme"]
trusted_ras = ["branch"]

[profile.strict]
challenge = "none"
manufacturers = ["acme"]
idevid_require_new_key = true
"""


@pytest.fixture(scope="module")
def zero_touch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Return a server that knows the manufacturer, the branch RA and one device."""
    data = make_data_directory(tmp_path_factory.mktemp("zero-touch"), TOML)
    (data.path / "acme.pem").write_bytes(pem([ROOT.der, SUB.der]))
    (data.path / "branch.pem").write_bytes(pem([BRANCH_RA.der]))
    with running_server(data) as server:
        server.run("device", "add", DEVICE_SERIAL)
        yield server


def answer(
    server: RunningServer,
    signer: Certificate,
    key: PrivateKey,
    *,
    device_serial: str = DEVICE_SERIAL,
    certified: PrivateKey = NEW_KEY,
    profile: str = "default",
) -> tuple[str, str]:
    """Ask for a certificate without any challenge; return pkiStatus and failInfo."""
    request = Request(key=certified, subject=parse_name(f"serialNumber={device_serial}"), attributes=None)
    envelope = Envelope(content=request.encode(), recipient=server.ra_certificate)
    # A transaction of its own for each signer and device.
    message = Message(key=key, signer=signer, content=envelope.encode(), transaction_id=f"{profile}-{device_serial}")
    reply = read_reply(server.post(message.encode(), profile=profile), server.ra_certificate)
    status = reply.text(oids.PKI_STATUS)
    return status, "" if status == "0" else reply.text(oids.FAIL_INFO)


def test_a_device_is_recertified_by_its_idevid_and_renews_until_aaa_says_no(
    zero_touch: RunningServer, tmp_path: Path
) -> None:
    """R-13: from the manufacturer's certificate to one of ours, and from that to its successor; no secret anywhere."""
    idevid, idevid_key = tmp_path / "idevid.pem", write_key(tmp_path / "idevid.key", DEVICE_KEY)
    idevid.write_bytes(pem([make_idevid().der]))
    new, out = write_key(tmp_path / "new.key", NEW_KEY), tmp_path / "first"
    subject = ("--subject", f"serialNumber={DEVICE_SERIAL}")
    manufacturer = ("--signer-cert", idevid, "--signer-key", idevid_key)
    zero_touch.run("enroll", zero_touch.url(), *subject, *manufacturer, "--key", new, "-o", out)
    issued = read_certificate(out / "device.pem")
    assert format_name(issued.subject) == f"serialNumber={DEVICE_SERIAL}"
    assert issued.not_after < make_idevid().not_after
    next_key = write_key(tmp_path / "next.key", rsa_key("next LDevID"))
    old = ("--renew", out / "device.pem", "--renew-key", new)
    zero_touch.run("enroll", zero_touch.url(), *old, "--key", next_key, "-o", tmp_path / "second")
    assert len(zero_touch.certificates_of(DEVICE_SERIAL)) >= 2
    # AAA has the last word over both kinds of certificates.
    renewed = read_certificate(tmp_path / "second" / "device.pem")
    signers = ((renewed, rsa_key("next LDevID")), (make_idevid(), DEVICE_KEY))
    zero_touch.run("device", "disable", DEVICE_SERIAL, "--keep-certificates")
    for signer, key in signers:
        assert answer(zero_touch, signer, key, certified=rsa_key("last LDevID")) == ("2", "2")
    zero_touch.run("device", "enable", DEVICE_SERIAL)
    assert answer(zero_touch, *signers[0], certified=rsa_key("last LDevID")) == ("0", "")


def test_a_request_for_another_device_is_refused(zero_touch: RunningServer) -> None:
    """R-15: registered or not; both serials stand in the security event."""
    zero_touch.run("device", "add", "FTX0000OTHR")
    assert answer(zero_touch, make_idevid(), DEVICE_KEY, device_serial="FTX0000OTHR") == ("2", "2")
    (event,) = zero_touch.log.events("identity_conflict")
    assert {DEVICE_SERIAL, "FTX0000OTHR"} == {value.partition(":")[2] for value in event["claims"]}


def test_an_authentic_device_that_nobody_registered_is_refused(zero_touch: RunningServer) -> None:
    """Authentication is not authorization: AAA decides."""
    idevid = make_idevid(parse_name("serialNumber=PID:TST-1000 SN:FTX0000STRA"), extensions=())
    assert answer(zero_touch, idevid, DEVICE_KEY, device_serial="FTX0000STRA") == ("2", "2")


def test_look_alikes_and_other_products_are_refused(zero_touch: RunningServer) -> None:
    """R-14: by the path and by the filters of the store."""
    forged = make_idevid(issuer=(SUB.subject, rsa_key("forger")))
    foreign = make_idevid(parse_name(f"serialNumber=PID:OTHER SN:{DEVICE_SERIAL}"))
    for signer in (forged, foreign):
        assert answer(zero_touch, signer, DEVICE_KEY) == ("2", "2")
        assert answer(zero_touch, signer, DEVICE_KEY, certified=DEVICE_KEY) == ("2", "2")


def test_a_profile_may_demand_a_new_key(zero_touch: RunningServer) -> None:
    """idevid_require_new_key: the manufacturer has seen the old one."""
    assert answer(zero_touch, make_idevid(), DEVICE_KEY, certified=DEVICE_KEY, profile="strict") == ("2", "2")


def test_a_trusted_ra_enrolls_a_device(zero_touch: RunningServer) -> None:
    """The RA signs, the device's key is certified; a profile that does not name the RA knows nothing of it."""
    zero_touch.run("device", "add", "FTX0000BRCH")
    key = rsa_key("behind the branch RA")
    assert answer(zero_touch, BRANCH_RA, RA_KEY, device_serial="FTX0000BRCH", certified=key) == ("0", "")
    assert len(zero_touch.certificates_of("FTX0000BRCH")) == 1
    refused = answer(zero_touch, BRANCH_RA, RA_KEY, device_serial="FTX0000BRCH", certified=key, profile="strict")
    assert refused == ("2", "1")
