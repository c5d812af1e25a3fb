"""Certificates for test servers on 127.0.0.1, each from a CA of its own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.support.key_files import write_key
from tests.support.keys import rsa_key


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFiles:
    """PEM files of a server, and of the CA that its clients need."""

    ca: Path
    certificate: Path
    key: Path


def write_server_files(directory: Path, *, address: str = "127.0.0.1", owner: str = "tls") -> ServerFiles:
    """Make a CA and a certificate for an IP address; `owner` names the keys, which are made once a session."""
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CA of {owner}")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, owner)])
    ca_key, key = rsa_key(f"{owner}-ca"), rsa_key(owner)
    now = datetime.now(UTC)

    def builder(subject: x509.Name, *, is_ca: bool) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )

    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    ca = (
        builder(ca_name, is_ca=True)
        .public_key(ca_key.public_key())
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    server = (
        builder(name, is_ca=False)
        .public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(address))]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    files = ServerFiles(
        ca=directory / f"{owner}-ca.pem", certificate=directory / f"{owner}.pem", key=directory / f"{owner}.key"
    )
    files.ca.write_bytes(ca.public_bytes(Encoding.PEM))
    files.certificate.write_bytes(server.public_bytes(Encoding.PEM))
    write_key(files.key, key)
    return files
