"""The [trust.NAME] tables as trust stores: read the files that they name, and give each profile its own.

What is done with a trust store is `pki.trust`'s and `scep.standing`'s matter; our own CAs' files are `ca.directory`'s.
"""

from __future__ import annotations

import re
from binascii import Error as NotBase64
from binascii import a2b_base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, assert_never

from scep_ra.config import ProfileConfig, Settings, TrustConfig
from scep_ra.errors import ConfigurationError
from scep_ra.pki import oids
from scep_ra.pki.certificates import Certificate, parse_certificate
from scep_ra.pki.errors import MalformedData
from scep_ra.pki.trust import TrustOptions, TrustStore, Untrusted, ValidityCheck, check_authority
from scep_ra.scep.standing import RegistrationAuthority, SignerTrust

# Decoded here and not by the cryptography library, which refuses what some manufacturers certify (zero serials).
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----([^-]*)-----END CERTIFICATE-----")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Everybody whom the configuration trusts, by name."""

    manufacturers: Mapping[str, TrustStore] = field(default_factory=dict)
    registration_authorities: Mapping[str, RegistrationAuthority] = field(default_factory=dict)

    def of(self, profile: ProfileConfig) -> SignerTrust:
        """Return whom this profile trusts."""
        return SignerTrust(
            manufacturers=tuple(self.manufacturers[name] for name in profile.manufacturers),
            registration_authorities=tuple(self.registration_authorities[name] for name in profile.trusted_ras),
        )


def load_trust(settings: Settings) -> Trust:
    """Read all files of all [trust.NAME] tables; raise ConfigurationError naming table, file and mend."""
    # Whoever writes a path into a file means it from there.
    directory = settings.data_dir if settings.config_file is None else settings.config_file.absolute().parent
    manufacturers: dict[str, TrustStore] = {}
    registration_authorities: dict[str, RegistrationAuthority] = {}
    for name, config in settings.config.trust.items():
        files = _Files(table=f"[trust.{name}]", directory=directory)
        match config.type:
            case "manufacturer":
                manufacturers[name] = _manufacturer(name, config, files)
            case "ra":
                registration_authorities[name] = _registration_authority(name, config, files)
            case _:
                assert_never(config.type)
    return Trust(manufacturers=manufacturers, registration_authorities=registration_authorities)


def _manufacturer(name: str, config: TrustConfig, files: _Files) -> TrustStore:
    return TrustStore(
        name=name,
        anchors=files.authorities(config.certificates),
        intermediates=files.authorities(config.intermediates),
        options=TrustOptions(
            check_validity=ValidityCheck(config.check_validity),
            allow_sha1=config.allow_sha1,
            organization=config.organization,
            products=config.products,
            denied=frozenset(config.denied),
        ),
    )


def _registration_authority(name: str, config: TrustConfig, files: _Files) -> RegistrationAuthority:
    denied = frozenset(config.denied)
    pinned = tuple(each for each in files.certificates(config.certificates) if each.fingerprint() not in denied)
    if not config.issued_by:
        return RegistrationAuthority(name=name, pinned=pinned)
    issuers = TrustStore(
        name=name,
        anchors=files.authorities(config.issued_by),
        intermediates=files.authorities(config.intermediates),
        options=TrustOptions(denied=denied, extended_key_usage=oids.CMC_RA),
    )
    return RegistrationAuthority(name=name, pinned=pinned, issuers=issuers)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """The PEM files of one table."""

    table: str
    directory: Path

    def certificates(self, paths: Iterable[str]) -> tuple[Certificate, ...]:
        return tuple(certificate for path in paths for certificate in self._read(self.directory / path))

    def authorities(self, paths: Iterable[str]) -> tuple[Certificate, ...]:
        """Return CA certificates; anything else would make a store that trusts nobody, or a device too much."""
        paths = tuple(paths)
        for path in paths:
            for certificate in self._read(self.directory / path):
                try:
                    check_authority(certificate)
                except Untrusted as error:
                    raise ConfigurationError(
                        f"{self.table} {self.directory / path}: {error}: name files of CA certificates here"
                    ) from None
        return self.certificates(paths)

    def _read(self, path: Path) -> tuple[Certificate, ...]:
        try:
            found = tuple(parse_certificate(a2b_base64(block)) for block in _PEM.findall(path.read_bytes()))
        except OSError as error:
            raise ConfigurationError(f"{self.table} {path}: cannot be read: {error.strerror}") from None
        except (NotBase64, MalformedData) as error:
            raise ConfigurationError(f"{self.table} {path}: holds a damaged certificate: {error}") from None
        if not found:
            raise ConfigurationError(
                f"{self.table} {path}: holds no certificate in PEM: "
                f"convert it with openssl x509 -inform DER -in {path} -out NEW.pem"
            )
        return found
