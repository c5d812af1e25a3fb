"""Enroll at a running server with messages of our own making, byte by byte known."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import rsa

from scep_ra.pki import oids
from scep_ra.pki.certificates import Certificate, parse_certificate
from scep_ra.pki.names import parse_name
from tests.support.scep_messages import Envelope, Message, Request, challenge, stand_in
from tests.support.scep_replies import certificates_of, read_reply
from tests.support.server import Registered, RunningServer


def pkcs_req(server: RunningServer, device: Registered, *, key: rsa.RSAPrivateKey | None = None) -> bytes:
    """Return a PKCSReq for a device, with its challenge, under its own key or another."""
    key = key or device.key
    request = Request(key=key, subject=parse_name(device.subject), attributes=(challenge(device.challenge),)).encode()
    envelope = Envelope(content=request, recipient=server.ra_certificate).encode()
    # As the transactionID the serial is found again in logs.
    return Message(key=key, signer=stand_in(key), content=envelope, transaction_id=device.device_serial).encode()


def status_of(server: RunningServer, reply: bytes) -> str:
    """Return the pkiStatus of a CertRep that verifies."""
    return read_reply(reply, server.ra_certificate).text(oids.PKI_STATUS)


def certificate_in(
    server: RunningServer, reply: bytes, device: Registered, *, key: rsa.RSAPrivateKey | None = None
) -> Certificate:
    """Return the one certificate of a CertRep that says SUCCESS to the key of this device, or to another."""
    assert status_of(server, reply) == "0"
    _, certs_only = read_reply(reply, server.ra_certificate).open(key or device.key)
    (certificate,) = certificates_of(certs_only)
    return parse_certificate(certificate)


def enroll(server: RunningServer, device: Registered) -> Certificate:
    """Enroll a device and return its certificate."""
    return certificate_in(server, server.post(pkcs_req(server, device)), device)
