"""One-time challenges: made from 128 random bits, stored as a digest, bound to a device, a profile and an expiry.

Where a profile accepts the password-based envelope (RFC 8894 3.1) the server must know the secret before it can read
the message, so it is kept a second time, sealed under a key of the data directory.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Final, assert_never

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from scep_ra.aaa.base import Accept, AccessRequest, Authorizer, Defer, Reject
from scep_ra.enrollment.errors import NotAuthorized
from scep_ra.errors import Misconfigured, Unavailable
from scep_ra.identity.types import DeviceID
from scep_ra.storage.base import Challenge

SECRET_BYTES: Final = 16  # 128 bits cannot be guessed, so a plain digest protects them at rest
SEAL_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class OneTimeChallenge:
    """A first enrollment needs a challenge made for its device, used once."""

    kind: ClassVar[str] = "one-time challenge"


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticChallenge:
    """One secret serves every device, for management systems that know nothing better; AAA alone tells them apart."""

    kind: ClassVar[str] = "static challenge"

    digest: bytes  # as challenge_digest makes it


@dataclass(frozen=True, slots=True, kw_only=True)
class NoChallenge:
    """No challenge opens this profile: only a certificate proves who asks."""

    kind: ClassVar[str] = "no challenge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Anonymous:
    """Nothing proves who asks: whoever knows the ID of a device gets its certificate."""

    kind: ClassVar[str] = "anonymous"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedChallenge:
    """Whoever hands out the challenges is asked about each: a web service that knows them (webhook SCEPCHALLENGE)."""

    kind: ClassVar[str] = "webhook challenge"

    authorizer: Authorizer  # reads the challenge in the request; its yes says nothing about the device's rights


ChallengeRule = OneTimeChallenge | StaticChallenge | NoChallenge | Anonymous | AskedChallenge


def challenge_digest(secret: str) -> bytes:
    """Return what is stored of a secret: SHA-256 of its UTF-8, neither trimmed nor folded."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeSeal:
    """Encrypts secrets at rest with AES-256-GCM; `key` has 32 octets."""

    key: bytes

    def seal(self, secret: str, random: Callable[[int], bytes]) -> bytes:
        """Return nonce and ciphertext."""
        nonce = random(_NONCE_BYTES)
        return nonce + AESGCM(self.key).encrypt(nonce, secret.encode(), None)

    def open(self, sealed: bytes) -> bytes:
        """Return the secret's UTF-8; raise Misconfigured when another key sealed it."""
        try:
            return AESGCM(self.key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
        except InvalidTag:
            raise Misconfigured("a challenge was sealed with another key: restore challenge.key") from None


def new_challenge(
    *,
    device_id: DeviceID,
    profile: str,
    now: datetime,
    lifetime: timedelta,
    random: Callable[[int], bytes],
    seal: ChallengeSeal | None = None,
) -> tuple[str, Challenge]:
    """Return a new secret and the row to store; the secret is 26 lower-case letters and digits 2 to 7 (base32).

    That alphabet survives shells, PrintableString and being read out on the telephone.
    """
    secret = base64.b32encode(random(SECRET_BYTES)).decode("ascii").rstrip("=").lower()
    return secret, Challenge(
        digest=challenge_digest(secret),
        device_id=device_id,
        profile=profile,
        created_at=now,
        expires_at=now + lifetime,
        sealed=seal.seal(secret, random) if seal else None,
    )


def check_challenge(challenge: Challenge | None, *, device_id: DeviceID, profile: str, now: datetime) -> None:
    """Check that a challenge entitles this device to this profile now; raise NotAuthorized with the reason."""
    if challenge is None:
        raise NotAuthorized("the challenge is missing or unknown")
    if challenge.used_by is not None:
        raise NotAuthorized("the challenge has been used")
    if now >= challenge.expires_at:
        raise NotAuthorized(f"the challenge expired at {challenge.expires_at:%Y-%m-%d %H:%M:%SZ}")
    if challenge.profile != profile:
        raise NotAuthorized(f"the challenge is for profile {challenge.profile!r}")
    if challenge.device_id != device_id:
        raise NotAuthorized(f"the challenge is for {challenge.device_id}, the request names {device_id}")


def check_static_challenge(secret: str | None, rule: StaticChallenge) -> None:
    """Check the shared secret in constant time; raise NotAuthorized. An empty or absent one never matches."""
    if secret is None or not hmac.compare_digest(challenge_digest(secret), rule.digest):
        raise NotAuthorized("the static challenge of this profile is missing or wrong")


async def ask_about_challenge(question: AccessRequest, rule: AskedChallenge) -> None:
    """Check by asking that the request in the question has a good challenge; raise NotAuthorized or a BackendError.

    There is no waiting for this answer: the challenge would have to be kept meanwhile.
    """
    answer = await rule.authorizer.authorize(question)
    match answer:
        case Accept():
            return
        case Reject(reason=reason):
            raise NotAuthorized(f"whoever hands out the challenges says no: {reason}")
        case Defer(reason=reason):
            raise Unavailable(f"nobody says whether the challenge is good: {reason}")
        case _:
            assert_never(answer)
