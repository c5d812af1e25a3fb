"""Private keys as files in the form that every client reads."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


def write_key(path: Path, key: rsa.RSAPrivateKey) -> Path:
    """Write the key as PEM in the traditional form: scepclient reads no PKCS #8."""
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    return path
