"""Claims about endpoints: what the configuration of a profile says is what its rules and services do."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from scep_ra.aaa.base import Authorizer
from scep_ra.aaa.guard import Guard, GuardRules, PendingOnError
from scep_ra.config import Config, ProfileConfig
from scep_ra.endpoints import _certificate_rules, _enrollment_rules, _server_rules
from scep_ra.enrollment.challenges import (
    Anonymous,
    AskedChallenge,
    ChallengeRule,
    NoChallenge,
    OneTimeChallenge,
    StaticChallenge,
)
from scep_ra.enrollment.rules import Approval, SecondKey
from scep_ra.pki.keys import KeyKind
from scep_ra.pki.profiles import ExtendedKeyUsage, KeyUsage
from scep_ra.scep.client import IssuedCertificate
from scep_ra.scep.terms import EmptyContent
from tests.support.authorizers import Scripted, Stopwatch
from tests.support.composition import configured, register, running
from tests.support.front import Device

JUDGE = Guard(
    "corp", Scripted(), GuardRules(timeout_s=5, breaker_failures=5, breaker_reset_s=30, cache_s=0), Stopwatch()
)
AUTHORIZERS: Mapping[str, Authorizer] = {"corp": PendingOnError(JUDGE)}
URL = "http://scep.example.net"
DIGEST = hashlib.sha256(b"lab-secret")
STATIC = {"challenge": "static", "static_challenge_sha256": DIGEST.hexdigest()}


def profile_of(**options: Any) -> ProfileConfig:
    return ProfileConfig.model_validate(options)


# --- rules ---------------------------------------------------------------------------------------------------------


def test_the_options_of_a_profile_become_its_rules() -> None:
    """Each by its own name."""
    rules = _enrollment_rules(
        "vpn",
        profile_of(
            device_id=("subject.serialNumber",),
            replay_days=2,
            approval="always",
            service="vpn-head-end",
            max_active_certificates=5,
            max_waiting_per_device=7,
            second_key="hold",
            idevid_require_new_key=True,
        ),
        URL,
        AUTHORIZERS,
    )
    assert (rules.profile, rules.device_id_rules) == ("vpn", ("subject.serialNumber",))
    assert rules.replay == timedelta(days=2)
    assert (rules.approval, rules.service) == (Approval.ALWAYS, "vpn-head-end")
    assert (rules.max_active, rules.max_waiting) == (5, 7)
    assert (rules.second_key, rules.idevid_new_key) == (SecondKey.HOLD, True)


def test_no_limit_is_written_as_zero() -> None:
    """A limit of zero would let nobody in."""
    rules = _enrollment_rules("lab", profile_of(max_active_certificates=0, max_waiting_per_device=0), URL, AUTHORIZERS)
    assert (rules.max_active, rules.max_waiting) == (None, None)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({}, OneTimeChallenge()),
        (STATIC, StaticChallenge(digest=DIGEST.digest())),
        ({"challenge": "webhook", "challenge_authorizer": "corp"}, AskedChallenge(authorizer=JUDGE)),
        ({"challenge": "none"}, NoChallenge()),
        ({"challenge": "anonymous", "insecure_anonymous": True}, Anonymous()),
    ],
)
def test_each_kind_of_challenge_has_its_rule(options: dict[str, Any], rule: ChallengeRule) -> None:
    """One made for the device, where nothing is said."""
    assert _enrollment_rules("default", profile_of(**options), URL, AUTHORIZERS).challenge == rule


def test_the_rules_of_renewal_follow_the_profile() -> None:
    """In days and hours as written; a certificate that is replaced just expires unless a delay is given."""
    renewal = _enrollment_rules(
        "default",
        profile_of(renewal={"window_days": 10, "grace_days": 3, "allow_same_key": True, "revoke_old_after_h": 0}),
        URL,
        AUTHORIZERS,
    ).renewal
    assert (renewal.enabled, renewal.window, renewal.grace) == (True, timedelta(days=10), timedelta(days=3))
    assert (renewal.allow_same_key, renewal.revoke_old_after) == (True, timedelta(0))
    plain = _enrollment_rules("default", profile_of(), URL, AUTHORIZERS).renewal
    assert (plain.window, plain.allow_same_key, plain.revoke_old_after) == (None, False, None)


def test_the_contents_of_certificates_follow_the_profile() -> None:
    """Uses, validity, and where the CA's CRL and certificate are and OCSP is answered."""
    contents = _certificate_rules(
        profile_of(
            ca="vpn",
            validity_days=30,
            key_usage=("digital_signature", "non_repudiation"),
            extended_key_usage=("server_auth",),
        ),
        URL,
        ocsp=True,
    )
    assert contents.validity == timedelta(days=30)
    assert contents.extensions.key_usage == (KeyUsage.DIGITAL_SIGNATURE, KeyUsage.NON_REPUDIATION)
    assert contents.extensions.extended_key_usage == (ExtendedKeyUsage.SERVER_AUTH,)
    assert contents.extensions.crl_url == f"{URL}/crl/vpn.crl"
    assert contents.extensions.ca_issuers_url == f"{URL}/certs/vpn.cer"
    assert contents.extensions.ocsp_url == f"{URL}/ocsp/vpn"


def test_what_is_spoken_on_the_wire_follows_the_profile() -> None:
    """The size of messages is the whole server's."""
    config = Config.model_validate({"limits": {"max_message_bytes": 16384}})
    wire = _server_rules(
        profile_of(
            keys=("rsa-3072", "ec-p384"),
            max_clock_skew_s=60,
            algorithms={"password_envelope": True},
            renewal={"enabled": False},
            compat={"empty_content": "absent"},
        ),
        config,
    )
    assert wire.key_kinds == {KeyKind.RSA_3072, KeyKind.EC_P384}
    assert wire.max_clock_skew == timedelta(seconds=60)
    assert (wire.algorithms.password_envelope, wire.renewal) == (True, False)
    assert (wire.empty_content, wire.limits.max_bytes) == (EmptyContent.ABSENT, 16384)
    assert _server_rules(profile_of(), config).max_clock_skew is None


# --- served --------------------------------------------------------------------------------------------------------


async def test_every_profile_is_served_under_its_name(tmp_path: Path) -> None:
    """And announces what it speaks."""
    lab = {"algorithms": {"allow_sha1": True, "allow_triple_des": True}, "renewal": {"enabled": False}}
    async with running(configured(tmp_path / "var", profile={"default": {}, "lab": lab})) as (_, site):
        default = (await site.get("/scep?operation=GetCACaps")).body.split()
        laboratory = (await site.get("/scep/lab?operation=GetCACaps")).body.split()

    assert set(default) ^ set(laboratory) == {b"SHA-1", b"DES3", b"Renewal"}


async def test_a_profile_without_an_ra_speaks_with_the_key_of_its_ca(tmp_path: Path) -> None:
    """GetCACert is then a single certificate."""
    settings = configured(
        tmp_path / "var",
        ca={"default": {"tiers": 1, "scep_key_usage": True}},
        ra={},
        profile={"default": {"ra": ""}},
    )
    async with running(settings) as (server, site):
        challenge = await register(server.parts.store)
        assert isinstance(await Device(site=site).enroll(challenge), IssuedCertificate)
        answer = await site.get("/scep?operation=GetCACert")

    assert (answer.content_type, answer.body) == (
        "application/x-x509-ca-cert",
        server.parts.chains["default"][0].der,
    )


async def test_the_services_of_a_profile_are_made_as_it_says(tmp_path: Path) -> None:
    """Queries, the CA's certificates in a reply, and the key that challenges are sealed with where they are."""
    special = {
        "queries": "off",
        "algorithms": {"password_envelope": True},
        "compat": {"ca_certificates_in_reply": True},
    }
    settings = configured(tmp_path / "var", profile={"default": {}, "special": special})
    async with running(settings) as (server, _):
        plain, made = server.endpoints["default"], server.endpoints["special"]
        chain = server.parts.chains["default"]

    assert (plain.profile, plain.queries._enabled, plain.extra_certificates, plain.seal) == ("default", True, (), None)
    assert (made.profile, made.queries._enabled, made.extra_certificates) == ("special", False, chain)
    assert made.seal is not None
