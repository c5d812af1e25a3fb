"""A certification authority whose key is at hand: it prepares TBSCertificates and signs exactly those.

Keys and certificates are given to it; files are `ca.directory`'s work, names and hierarchies `ca.hierarchy`'s.
What an end-entity certificate holds is written in `pki.issuance`, what it must not hold in `pki.lint`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol, TypeVar

from scep_ra.ca.base import Issued, IssueRequest
from scep_ra.ca.hierarchy import BACKDATED, Random, authority_name
from scep_ra.errors import Misconfigured, Refused
from scep_ra.pki import der
from scep_ra.pki.algorithms import SignatureAlgorithm
from scep_ra.pki.certificates import Certificate, parse_certificate
from scep_ra.pki.errors import PKIError
from scep_ra.pki.issuance import (
    EndEntityTemplate,
    assemble_signed,
    new_certificate_serial,
    signature_algorithm,
    signing_scheme,
)
from scep_ra.pki.keys import Signer, load_public_key, verify_signature
from scep_ra.pki.lint import check_contents
from scep_ra.pki.profiles import CertificateProfile, ExtendedKeyUsage, KeyUsage

_T = TypeVar("_T")
_CRL_VERSION_2: Final = 1
# Nobody asks whether it is revoked, so it must end soon (RFC 6960 4.2.2.2.1); half of it survives a long week-end.
_OCSP_VALIDITY: Final = timedelta(days=7)
_OCSP_PROFILE: Final = CertificateProfile(
    key_usage=(KeyUsage.DIGITAL_SIGNATURE,), extended_key_usage=(ExtendedKeyUsage.OCSP_SIGNING,), ocsp_nocheck=True
)
# Not DER, so the signature over it is of no use to anybody who could see it.
_SELF_TEST: Final = b"scep_ra self-test of the certification authority"


class Runner(Protocol):
    """Run a function off the event loop: asyncio.to_thread, or a bounded pool's method."""

    def __call__(self, function: Callable[[], _T], /) -> Awaitable[_T]:
        """Call the function and return what it returns."""
        ...


class LocalCA:
    """CertificateAuthority, SupportsCRL and SupportsOCSP over a Signer and the chain from its certificate up."""

    keeps_serial = True

    def __init__(
        self,
        *,
        name: str,
        signer: Signer,
        chain: Sequence[Certificate],
        crl_validity: timedelta,
        now: Callable[[], datetime],
        run: Runner = asyncio.to_thread,
        random: Random = secrets.token_bytes,
    ) -> None:
        self.name = name
        self.crl_validity = crl_validity
        self._signer = signer
        self._chain = tuple(chain)
        self._certificate = self._chain[0]
        self._now = now
        self._run = run
        self._random = random
        self._algorithm = signature_algorithm(self._certificate.spki)
        self._digest = signing_scheme(self._certificate.spki)[1]
        self._templates: dict[CertificateProfile, EndEntityTemplate] = {}

    async def chain(self) -> Sequence[Certificate]:
        """Return the issuing certificate, then its issuers up to and including the root."""
        return self._chain

    def prepare(self, request: IssueRequest) -> bytes:
        """Return the DER TBSCertificate of this request, its validity cut to that of the CA.

        Raise Refused when nothing is left of the validity or the profile allows the key no usage.
        """
        not_before = max(request.not_before, self._certificate.not_before)
        not_after = min(request.not_after, self._certificate.not_after)
        if not_after <= not_before:
            raise Refused(f"CA {self.name!r} ends on {self._certificate.not_after:%Y-%m-%d %H:%M:%SZ}: renew it first")
        try:
            return self._template(request.profile).build(
                certificate_serial=request.certificate_serial,
                not_before=not_before,
                not_after=not_after,
                subject=request.subject,
                spki=request.spki,
                subject_alt_name=request.subject_alt_name,
            )
        except PKIError as error:
            raise Refused(f"CA {self.name!r} cannot certify this key: {error}") from error

    def _template(self, profile: CertificateProfile) -> EndEntityTemplate:
        template = self._templates.get(profile)
        if template is None:
            template = self._templates[profile] = EndEntityTemplate(self._certificate, profile)
        return template

    async def issue(self, order: bytes) -> Issued:
        """Sign an order of `prepare`; the same order gives the same octets. Raise Refused when it is not one of ours.

        The caller verifies the signature, as with every authority, before anybody sees it (`pki.lint`): a single
        miscalculated RSA-CRT signature would give the key away.
        """
        return await self._run(lambda: self._issue(order))

    def _issue(self, order: bytes) -> Issued:
        unsigned = self._read_order(order)
        signature = self._signer.sign(order, self._digest)
        octets = assemble_signed(order, self._algorithm, signature)
        certificate = dataclasses.replace(unsigned, der=octets, signature=signature)
        return Issued(certificate=certificate)

    def _read_order(self, order: bytes) -> Certificate:
        """Return what the order will become, without its signature."""
        try:
            unsigned = parse_certificate(assemble_signed(order, self._algorithm, b""))
            check_contents(unsigned, issuer=self._certificate)
        except PKIError as error:
            raise Refused(f"CA {self.name!r} signs only orders of its own: {error}") from error
        return unsigned

    async def sign_crl(self, tbs_cert_list: bytes) -> bytes:
        """Sign a DER TBSCertList of this CA and return the DER CertificateList; raise Refused for anything else."""
        try:
            fields = der.Reader(tbs_cert_list).enter()
            head = fields.integer(), fields.element(der.SEQUENCE), fields.element(der.SEQUENCE)
        except PKIError as error:
            raise Refused(f"CA {self.name!r} was given no TBSCertList: {error}") from error
        if head != (_CRL_VERSION_2, self._algorithm, self._certificate.subject):
            raise Refused(f"CA {self.name!r} signs only CRLs of its own")
        signature = await self._run(lambda: self._signer.sign(tbs_cert_list, self._digest))
        return assemble_signed(tbs_cert_list, self._algorithm, signature)

    async def certify_ocsp_key(self, spki: bytes) -> Certificate:
        """Issue a certificate of a week to the key that signs answers (DER SubjectPublicKeyInfo); raise Refused."""
        now = self._now()
        order = self.prepare(
            IssueRequest(
                certificate_serial=new_certificate_serial(self._random),
                subject=authority_name("", self.name, "OCSP"),
                spki=spki,
                subject_alt_name=None,
                not_before=now - BACKDATED,
                not_after=now + _OCSP_VALIDITY,
                profile=_OCSP_PROFILE,
            )
        )
        return (await self.issue(order)).certificate

    async def check(self) -> None:
        """Sign once and verify; raise Misconfigured when the certificate is not valid now or the key is another's."""
        now, certificate = self._now(), self._certificate
        if not certificate.not_before <= now <= certificate.not_after:
            raise Misconfigured(
                f"the certificate of CA {self.name!r} is valid from {certificate.not_before:%Y-%m-%d %H:%M:%SZ} to "
                f"{certificate.not_after:%Y-%m-%d %H:%M:%SZ}: renew it, or set this machine's clock"
            )
        await self._run(self._self_test)

    def _self_test(self) -> None:
        algorithm = SignatureAlgorithm(scheme=self._signer.scheme, digest=self._digest)
        signature = self._signer.sign(_SELF_TEST, self._digest)
        try:
            verify_signature(load_public_key(self._certificate.spki), algorithm, self._digest, signature, _SELF_TEST)
        except PKIError as error:
            raise Misconfigured(f"the key of CA {self.name!r} is not that of its certificate") from error
