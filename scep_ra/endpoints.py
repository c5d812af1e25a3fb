"""From the configuration of a profile to the endpoint that serves it.

With `app` and `parts` the composition root: here rules are made of options, and services of rules and parts.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import assert_never

from scep_ra.aaa.base import Authorizer
from scep_ra.aaa.guard import outspoken
from scep_ra.ca.base import CertificateAuthority, SupportsCRL
from scep_ra.ca.directory import RAMaterial, load_ca
from scep_ra.config import Config, ProfileConfig, RenewalConfig, Settings
from scep_ra.data_directory import challenge_seal
from scep_ra.enrollment.challenges import (
    Anonymous,
    AskedChallenge,
    ChallengeRule,
    NoChallenge,
    OneTimeChallenge,
    StaticChallenge,
)
from scep_ra.enrollment.lockout import Lockout
from scep_ra.enrollment.naming import NamingRules
from scep_ra.enrollment.queries import QueryService
from scep_ra.enrollment.refusals import RefusalLog
from scep_ra.enrollment.renewal import RenewalRules
from scep_ra.enrollment.rules import Approval, CertificateRules, EnrollmentRules, SecondKey
from scep_ra.enrollment.service import EnrollmentService
from scep_ra.headend.disconnect import DisconnectService
from scep_ra.headend.outbox import Outbox
from scep_ra.parts import utc_now
from scep_ra.pki.ber import Limits
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.keys import KeyKind
from scep_ra.pki.profiles import CertificateProfile, ExtendedKeyUsage, KeyUsage
from scep_ra.pki.signed_data import MessageSigner
from scep_ra.revocation.responder import OCSPResponder
from scep_ra.revocation.service import RevocationService
from scep_ra.scep.policy import AlgorithmPolicy
from scep_ra.scep.server import RecipientKey, ScepServer, ServerRules
from scep_ra.scep.terms import EmptyContent
from scep_ra.storage.base import Store
from scep_ra.trust_files import Trust
from scep_ra.web.ocsp import ocsp_url
from scep_ra.web.repository import certificate_url, crl_url
from scep_ra.web.scep import Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the endpoints of all profiles share."""

    settings: Settings
    store: Store
    authorities: Mapping[str, CertificateAuthority]
    chains: Mapping[str, Sequence[Certificate]]
    ras: Mapping[str, RAMaterial]
    authorizers: Mapping[str, Authorizer]
    revocations: RevocationService
    responders: Mapping[str, OCSPResponder]
    trust: Trust
    refusals: RefusalLog
    outbox: Outbox
    disconnects: DisconnectService
    public_url: str


def make_endpoint(name: str, profile: ProfileConfig, parts: Parts) -> Endpoint:
    """Return the endpoint of one profile."""
    chain = parts.chains[profile.ca]
    ra = _ra_of(profile, parts)
    seal = challenge_seal(parts.settings.data_dir) if profile.algorithms.password_envelope else None
    return Endpoint(
        profile=name,
        server=ScepServer(
            signer=MessageSigner(ra.key, ra.certificate),
            recipients=[RecipientKey(certificate=ra.certificate, key=ra.key)],
            ca_certificates=chain,
            rules=_server_rules(profile, parts.settings.config),
            trust=parts.trust.of(profile),
            random=secrets.token_bytes,
        ),
        enrollment=_enrollment_service(name, profile, parts),
        queries=QueryService(
            profile=name,
            ca=profile.ca,
            ca_certificates=chain,
            ra_certificate=ra.certificate,
            store=parts.store,
            crls=parts.revocations if isinstance(parts.authorities[profile.ca], SupportsCRL) else None,
            enabled=profile.queries == "issued",
            now=utc_now,
        ),
        extra_certificates=chain if profile.compat.ca_certificates_in_reply else (),
        challenges=parts.store,
        refusals=parts.refusals,
        seal=seal,
    )


def _enrollment_service(name: str, profile: ProfileConfig, parts: Parts) -> EnrollmentService:
    return EnrollmentService(
        rules=_enrollment_rules(
            name, profile, parts.public_url, parts.authorizers, ocsp=profile.ca in parts.responders
        ),
        store=parts.store,
        authorizer=parts.authorizers[profile.authorizer],
        ca=parts.authorities[profile.ca],
        lockout=_lockout(profile, parts.settings.config.server.workers),
        refusals=parts.refusals,
        forbidden_keys=_keys_of_authorities(parts),
        other_contents={
            other: _certificate_rules(config, parts.public_url, ocsp=profile.ca in parts.responders)
            for other, config in parts.settings.config.profile.items()
            if config.ca == profile.ca
        },
        now=utc_now,
        random=secrets.token_bytes,
    )


def _lockout(profile: ProfileConfig, workers: int) -> Lockout:
    """Return this process's share of the lock-out: connections are spread over the workers, and so are the guesses."""
    attempts = profile.lockout_attempts and max(1, profile.lockout_attempts // workers)
    return Lockout(attempts=attempts, window_s=profile.lockout_window_s)


def _keys_of_authorities(parts: Parts) -> frozenset[bytes]:
    """Return SHA-256 of each key that no device can have: those of the CAs up to their roots, and of the RAs."""
    certificates = [certificate for chain in parts.chains.values() for certificate in chain]
    certificates += [ra.certificate for ra in parts.ras.values()]
    return frozenset(hashlib.sha256(certificate.spki).digest() for certificate in certificates)


def _ra_of(profile: ProfileConfig, parts: Parts) -> RAMaterial:
    """Return who speaks SCEP: the RA, or the CA itself where the profile names none."""
    if profile.ra:
        return parts.ras[profile.ra]
    material = load_ca(parts.settings.data_dir, profile.ca, now=utc_now())
    return RAMaterial(key=material.signer, certificate=material.chain[0])


def _server_rules(profile: ProfileConfig, config: Config) -> ServerRules:
    algorithms = profile.algorithms
    return ServerRules(
        algorithms=AlgorithmPolicy.of(
            sha1=algorithms.allow_sha1,
            triple_des=algorithms.allow_triple_des,
            des_and_md5=algorithms.insecure_des_and_md5,
            password_envelope=algorithms.password_envelope,
        ),
        limits=Limits(max_bytes=config.limits.max_message_bytes),
        key_kinds=frozenset(map(KeyKind, profile.keys)),
        renewal=profile.renewal.enabled,
        max_clock_skew=timedelta(seconds=profile.max_clock_skew_s) if profile.max_clock_skew_s else None,
        empty_content=EmptyContent(profile.compat.empty_content),
    )


def _challenge_rule(profile: ProfileConfig, authorizers: Mapping[str, Authorizer]) -> ChallengeRule:
    match profile.challenge:
        case "one-time":
            return OneTimeChallenge()
        case "static":
            return StaticChallenge(digest=bytes.fromhex(profile.static_challenge_sha256))
        case "webhook":
            # A device cannot wait for this answer, so it hears of an error at once.
            return AskedChallenge(authorizer=outspoken(authorizers[profile.challenge_authorizer]))
        case "none":
            return NoChallenge()
        case "anonymous":
            return Anonymous()
        case _:
            assert_never(profile.challenge)


def _certificate_rules(profile: ProfileConfig, public_url: str, *, ocsp: bool) -> CertificateRules:
    return CertificateRules(
        extensions=CertificateProfile(
            key_usage=tuple(KeyUsage[usage.upper()] for usage in profile.key_usage),
            extended_key_usage=tuple(ExtendedKeyUsage(usage) for usage in profile.extended_key_usage),
            crl_url=crl_url(public_url, profile.ca),
            ca_issuers_url=certificate_url(public_url, profile.ca),
            ocsp_url=ocsp_url(public_url, profile.ca) if ocsp else "",
        ),
        validity=timedelta(days=profile.validity_days),
        naming=NamingRules.compile(
            subject=profile.subject,
            subject_allowed=profile.subject_allowed,
            subject_unchecked=profile.subject_unchecked,
            subject_alt_name=profile.subject_alt_name,
        ),
    )


def _enrollment_rules(
    name: str,
    profile: ProfileConfig,
    public_url: str,
    authorizers: Mapping[str, Authorizer],
    *,
    ocsp: bool = False,
) -> EnrollmentRules:
    return EnrollmentRules(
        profile=name,
        device_id_rules=profile.device_id,
        contents=_certificate_rules(profile, public_url, ocsp=ocsp),
        replay=timedelta(days=profile.replay_days),
        challenge=_challenge_rule(profile, authorizers),
        renewal=_renewal_rules(profile.renewal),
        approval=Approval(profile.approval),
        service=profile.service,
        max_active=profile.max_active_certificates or None,
        max_waiting=profile.max_waiting_per_device or None,
        second_key=SecondKey(profile.second_key),
        idevid_new_key=profile.idevid_require_new_key,
    )


def _renewal_rules(renewal: RenewalConfig) -> RenewalRules:
    delay_h = renewal.revoke_old_after_h
    return RenewalRules(
        enabled=renewal.enabled,
        window=timedelta(days=renewal.window_days) if renewal.window_days else None,
        grace=timedelta(days=renewal.grace_days),
        allow_same_key=renewal.allow_same_key,
        revoke_old_after=timedelta(hours=delay_h) if delay_h >= 0 else None,
    )
