"""A simulated manufacturer: "Acme Mfg" with a root CA, an issuing CA, and devices with an IDevID (IEEE 802.1AR).

Every certificate is built field by field, so that a test can spoil any one of them. Keys are shared: constants.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from scep_ra.pki import der, oids
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.names import parse_name
from scep_ra.pki.trust import TrustOptions, TrustStore
from tests.support.keys import PrivateKey, rsa_key
from tests.support.scep_messages import certificate, extension

DIGITAL_SIGNATURE: Final = 0
KEY_ENCIPHERMENT: Final = 2
KEY_CERT_SIGN: Final = 5
NO_END: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # 802.1AR 8.7
LIFETIME: Final = (datetime(2020, 1, 1, tzinfo=UTC), NO_END)
ENDED: Final = (datetime(2010, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC))
ROOT_NAME: Final = parse_name("O=Acme Mfg,CN=Acme Root CA")
SUB_NAME: Final = parse_name("O=Acme Mfg,CN=Acme Issuing CA")
DEVICE_SERIAL: Final = "FTX1234ABCD"
DEVICE_NAME: Final = parse_name(
    f"serialNumber=PID:TST-1000 SN:{DEVICE_SERIAL},O=Acme Mfg,OU=ACT-2 Lite SUDI,CN=TST-1000"
)
HARDWARE_TYPE: Final = "1.3.6.1.4.1.99999.1"


def key_usage(*bits: int) -> bytes:
    return extension(oids.KEY_USAGE, der.named_bits(*bits), critical=True)


def basic_constraints(path_length: int | None = None, *, is_ca: bool = True) -> bytes:
    limit = b"" if path_length is None else der.integer(path_length)
    return extension(oids.BASIC_CONSTRAINTS, der.sequence(der.TRUE if is_ca else b"", limit), critical=True)


def hardware_module_name(device_serial: str = DEVICE_SERIAL, hardware_type: str = HARDWARE_TYPE) -> bytes:
    """Return the subjectAltName extension with a hardwareModuleName (RFC 4108 5)."""
    module = der.sequence(der.oid(hardware_type), der.octet_string(device_serial.encode()))
    return san(der.explicit(0, der.oid(oids.HARDWARE_MODULE_NAME) + der.explicit(0, module)))


def san(*general_names: bytes) -> bytes:
    return extension(oids.SUBJECT_ALT_NAME, der.sequence(*general_names))


def make_authority(
    owner: str,
    subject: bytes,
    issuer: tuple[bytes, PrivateKey] | None = None,
    *,
    path_length: int | None = None,
    extensions: Iterable[bytes] | None = None,
    key: PrivateKey | None = None,
    certificate_serial: int = 1,
    digest: str = "sha256",
    validity: tuple[datetime, datetime] = LIFETIME,
) -> Certificate:
    """Return a CA certificate over the key of this owner, self-signed without an issuer (its name and key)."""
    key = key or rsa_key(owner)
    name, signing_key = issuer or (subject, key)
    return certificate(
        key,
        subject=subject,
        issuer=name,
        issuer_key=signing_key,
        certificate_serial=certificate_serial,
        digest=digest,
        validity=validity,
        extensions=(basic_constraints(path_length), key_usage(KEY_CERT_SIGN)) if extensions is None else extensions,
    )


ROOT_KEY: Final = rsa_key("Acme root CA")
SUB_KEY: Final = rsa_key("Acme issuing CA")
ROOT: Final = make_authority("Acme root CA", ROOT_NAME)
SUB: Final = make_authority("Acme issuing CA", SUB_NAME, (ROOT_NAME, ROOT_KEY), path_length=0, certificate_serial=2)
DEVICE_KEY: Final = rsa_key("IDevID")
DEVICE_USAGE: Final = key_usage(DIGITAL_SIGNATURE, KEY_ENCIPHERMENT)


def make_idevid(
    subject: bytes = DEVICE_NAME,
    *,
    key: PrivateKey = DEVICE_KEY,
    issuer: tuple[bytes, PrivateKey] = (SUB_NAME, SUB_KEY),
    digest: str = "sha256",
    validity: tuple[datetime, datetime] = LIFETIME,
    extensions: Iterable[bytes] | None = None,
) -> Certificate:
    """Return an IDevID, of TST-1000 with DEVICE_SERIAL and its hardwareModuleName unless told otherwise."""
    return certificate(
        key,
        subject=subject,
        issuer=issuer[0],
        issuer_key=issuer[1],
        certificate_serial=4711,
        digest=digest,
        validity=validity,
        extensions=(DEVICE_USAGE, hardware_module_name()) if extensions is None else extensions,
    )


def make_store(options: TrustOptions | None = None, *, intermediates: tuple[Certificate, ...] = (SUB,)) -> TrustStore:
    """Return the store "acme": the root, and the issuing CA because devices send their own certificate only."""
    return TrustStore(name="acme", anchors=(ROOT,), intermediates=intermediates, options=options or TrustOptions())
