"""What a profile decides about enrollment, as values; made from the configuration by the composition root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from scep_ra.enrollment.challenges import ChallengeRule, OneTimeChallenge
from scep_ra.enrollment.naming import NamingRules
from scep_ra.enrollment.renewal import RenewalRules
from scep_ra.pki.profiles import CertificateProfile


class SecondKey(StrEnum):
    """What to do when a device that holds an active certificate asks for a first one under another key.

    That is a device that was reset, or a clone of it: from here the two look the same.
    """

    ALLOW = "allow"
    REFUSE = "refuse"
    HOLD = "hold"  # an operator decides
    REPLACE = "replace"  # issue, and revoke the others


class Approval(StrEnum):
    """Which requests an operator has to approve, besides those of devices that AAA marks so."""

    OFF = "off"
    FIRST = "first"  # not renewals
    ALWAYS = "always"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRules:
    """What the certificates of a profile hold; AAA may choose those of another profile."""

    extensions: CertificateProfile
    validity: timedelta
    naming: NamingRules


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollmentRules:
    """What a profile decides about enrollment."""

    profile: str
    device_id_rules: Sequence[str]
    contents: CertificateRules
    replay: timedelta  # how long the same request gets the same certificate, and how long one waits
    challenge: ChallengeRule = field(default_factory=OneTimeChallenge)
    renewal: RenewalRules = field(default_factory=RenewalRules)
    approval: Approval = Approval.OFF
    service: str = ""  # that AAA has to grant; "" = none
    max_active: int | None = None  # certificates of one device; None = no limit
    max_waiting: int | None = None  # requests of one device that are not decided; None = no limit
    second_key: SecondKey = SecondKey.ALLOW
    idevid_new_key: bool = False  # an IDevID's own key is not certified again
