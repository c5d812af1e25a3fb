"""Claims about one-time secrets: how they are made, kept and judged."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.enrollment.challenges import (
    SEAL_KEY_BYTES,
    SECRET_BYTES,
    ChallengeSeal,
    StaticChallenge,
    challenge_digest,
    check_challenge,
    check_static_challenge,
    new_challenge,
)
from scep_ra.enrollment.errors import NotAuthorized
from scep_ra.errors import Misconfigured
from scep_ra.storage.base import Challenge
from tests.support.enrollment import HOUR, device_id
from tests.support.pki import NOW

SEAL = ChallengeSeal(key=bytes(range(SEAL_KEY_BYTES)))


def make(seal: ChallengeSeal | None = None) -> tuple[str, Challenge]:
    return new_challenge(
        device_id=device_id(), profile="default", now=NOW, lifetime=HOUR, random=secrets.token_bytes, seal=seal
    )


def check(challenge: Challenge | None, *, seconds: float = 0) -> None:
    check_challenge(challenge, device_id=device_id(), profile="default", now=NOW + timedelta(seconds=seconds))


def test_a_secret_has_128_random_bits_in_an_alphabet_that_survives() -> None:
    """PrintableString, shells and the telephone: lower-case letters and digits."""
    asked: list[int] = []

    def random(count: int) -> bytes:
        asked.append(count)
        return secrets.token_bytes(count)

    secret, _ = new_challenge(device_id=device_id(), profile="default", now=NOW, lifetime=HOUR, random=random)

    assert re.fullmatch("[a-z2-7]{26}", secret)
    assert asked == [SECRET_BYTES] == [16]


def test_what_is_stored_does_not_hold_the_secret() -> None:
    """Only its SHA-256; who may use it and how long stand beside it."""
    secret, challenge = make()

    assert challenge == Challenge(
        digest=hashlib.sha256(secret.encode()).digest(),
        device_id=device_id(),
        profile="default",
        created_at=NOW,
        expires_at=NOW + HOUR,
    )
    assert secret not in repr(challenge)


@given(st.text(), st.text())
def test_secrets_are_compared_octet_by_octet(one: str, other: str) -> None:
    """Neither trimmed nor folded, and any text that a request can hold has a digest."""
    assert (challenge_digest(one) == challenge_digest(other)) is (one == other)


def test_a_lone_surrogate_has_a_digest() -> None:
    """BMPString can hold one."""
    assert challenge_digest("\ud800") != challenge_digest("\ud801")


# --- sealed --------------------------------------------------------------------------------------------------------


def test_a_sealed_secret_comes_back_as_utf_8() -> None:
    """Where an envelope is closed with it, the server must know it."""
    secret, challenge = make(SEAL)

    assert challenge.sealed is not None
    assert secret.encode() not in challenge.sealed
    assert SEAL.open(challenge.sealed) == secret.encode()


def test_sealing_twice_gives_different_octets() -> None:
    """A nonce of its own each time."""
    assert SEAL.seal("secret", secrets.token_bytes) != SEAL.seal("secret", secrets.token_bytes)


@pytest.mark.parametrize("seal", [ChallengeSeal(key=bytes(SEAL_KEY_BYTES)), SEAL])
def test_a_seal_of_another_key_or_a_broken_one_is_an_operators_matter(seal: ChallengeSeal) -> None:
    """The message says which file to restore, and nothing of the secret."""
    sealed = SEAL.seal("secret", secrets.token_bytes)
    broken = sealed if seal is not SEAL else sealed[:-1] + bytes([sealed[-1] ^ 1])

    with pytest.raises(Misconfigured, match=r"restore challenge\.key") as error:
        seal.open(broken)
    assert "secret" not in str(error.value)


# --- judged --------------------------------------------------------------------------------------------------------


def test_a_fresh_challenge_of_this_device_and_profile_is_accepted() -> None:
    """Until a moment before it expires."""
    check(make()[1], seconds=3599)


@pytest.mark.parametrize(
    ("challenge", "reason"),
    [
        (None, "missing or unknown"),
        (replace(make()[1], used_by="0" * 32), "has been used"),
        (replace(make()[1], expires_at=NOW), "expired at"),
        (replace(make()[1], profile="lab"), "is for profile 'lab'"),
        (replace(make()[1], device_id=device_id("OTHER1")), "is for serial:OTHER1, the request names serial:FOC1234"),
    ],
    ids=["unknown", "used", "expired", "profile", "device"],
)
def test_every_other_challenge_is_refused_with_its_reason(challenge: Challenge | None, reason: str) -> None:
    """N-33, N-34, N-35: the reason is for the log."""
    with pytest.raises(NotAuthorized, match=reason):
        check(challenge)


@pytest.mark.parametrize("secret", [None, "", "lab-secret ", "LAB-SECRET"])
def test_a_static_challenge_is_matched_to_the_letter(secret: str | None) -> None:
    """Neither absent, nor trimmed, nor folded."""
    rule = StaticChallenge(digest=challenge_digest("lab-secret"))
    check_static_challenge("lab-secret", rule)
    with pytest.raises(NotAuthorized, match="missing or wrong"):
        check_static_challenge(secret, rule)
