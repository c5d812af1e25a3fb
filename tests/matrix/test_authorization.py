"""The authorization matrix: every message from everybody in every situation, against a policy written in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import fields
from itertools import product
from typing import Final

import pytest

from tests.matrix.bench import Bench, Observation, expected
from tests.matrix.oracle import (
    AAA,
    Approval,
    Cell,
    Challenge,
    Kind,
    Outcome,
    Profile,
    Proof,
    Signer,
    Standing,
    collected,
    verdict,
)

SIGNERS: Final = (
    Signer.SELF_MADE,
    Signer.OURS,
    Signer.EXPIRED,
    Signer.REVOKED,
    Signer.FOREIGN,
    Signer.SUDI,
    Signer.TENANT,
)


def cells(
    kinds: Iterable[Kind],
    signers: Iterable[Signer],
    challenges: Iterable[Challenge] = Challenge,
    profiles: Iterable[Profile] = Profile,
    *,
    proof: Proof = Proof.CHALLENGE,
    approval: Approval = Approval.OFF,
) -> list[Cell]:
    """Return every combination with every answer of AAA."""
    return [
        Cell(kind=kind, signer=signer, challenge=challenge, profile=profile, aaa=aaa, proof=proof, approval=approval)
        for kind, signer, challenge, profile, aaa in product(kinds, signers, challenges, profiles, AAA)
    ]


MATRIX: Final = cells(Kind, SIGNERS)
STRANGERS: Final = (Signer.TRUSTED_RA, Signer.IMPOSTOR)
# Every cell of the matrix in which a certificate is issued; AAA said yes and the profile is OWN in all of them.
ISSUING: Final = {
    (Kind.PKCS_REQ, Signer.SELF_MADE, Challenge.RIGHT),
    (Kind.PKCS_REQ, Signer.OURS, Challenge.NONE),
    (Kind.PKCS_REQ, Signer.OURS, Challenge.WRONG),
    (Kind.PKCS_REQ, Signer.OURS, Challenge.USED),
    (Kind.PKCS_REQ, Signer.OURS, Challenge.EXPIRED),
    (Kind.PKCS_REQ, Signer.OURS, Challenge.OTHER_DEVICES),
    (Kind.PKCS_REQ, Signer.OURS, Challenge.RIGHT),
    (Kind.PKCS_REQ, Signer.SUDI, Challenge.NONE),
    (Kind.PKCS_REQ, Signer.SUDI, Challenge.WRONG),
    (Kind.PKCS_REQ, Signer.SUDI, Challenge.USED),
    (Kind.PKCS_REQ, Signer.SUDI, Challenge.EXPIRED),
    (Kind.PKCS_REQ, Signer.SUDI, Challenge.OTHER_DEVICES),
    (Kind.PKCS_REQ, Signer.SUDI, Challenge.RIGHT),
    (Kind.RENEWAL_REQ, Signer.OURS, Challenge.NONE),
    (Kind.RENEWAL_REQ, Signer.OURS, Challenge.WRONG),
    (Kind.RENEWAL_REQ, Signer.OURS, Challenge.USED),
    (Kind.RENEWAL_REQ, Signer.OURS, Challenge.EXPIRED),
    (Kind.RENEWAL_REQ, Signer.OURS, Challenge.OTHER_DEVICES),
    (Kind.RENEWAL_REQ, Signer.OURS, Challenge.RIGHT),
    (Kind.RENEWAL_REQ, Signer.SUDI, Challenge.NONE),
    (Kind.RENEWAL_REQ, Signer.SUDI, Challenge.WRONG),
    (Kind.RENEWAL_REQ, Signer.SUDI, Challenge.USED),
    (Kind.RENEWAL_REQ, Signer.SUDI, Challenge.EXPIRED),
    (Kind.RENEWAL_REQ, Signer.SUDI, Challenge.OTHER_DEVICES),
    (Kind.RENEWAL_REQ, Signer.SUDI, Challenge.RIGHT),
    (Kind.CERT_POLL, Signer.SELF_MADE, Challenge.RIGHT),
}


def titles(cell: Cell) -> str:
    return ", ".join(f"{each.name} {getattr(cell, each.name).name}" for each in fields(cell))


def difference(cell: Cell, seen: Observation, wanted: Observation) -> list[str]:
    """Return a line about a cell in which the product and the policy disagree."""
    return [] if seen == wanted else [f"{titles(cell)}\n    seen   {seen}\n    wanted {wanted}"]


async def disagreements(bench: Bench, played: Iterable[Cell]) -> str:
    """Play cells and return what is not as it should be."""
    found = [
        line for cell in played for line in difference(cell, await bench.play(cell), expected(cell, verdict(cell)))
    ]
    return "\n".join(found)


# --- the matrix ----------------------------------------------------------------------------------------------------


def test_the_matrix_has_every_cell() -> None:
    """7 message types, 7 signers, 6 challenges, 4 answers of AAA, 2 profiles; this is what comes of them."""
    assert len(MATRIX) == 2352
    assert Counter(verdict(cell).outcome for cell in MATRIX) == {
        Outcome.ISSUED: 26,
        Outcome.CERTIFICATE: 24,
        Outcome.CRL: 24,
        Outcome.UNAVAILABLE: 52,
        Outcome.BAD_MESSAGE_CHECK: 168,
        Outcome.BAD_REQUEST: 2058,
    }


def test_certificates_are_issued_in_these_cells_and_in_no_other() -> None:
    """26 of 2,352: SR-01, SR-03, SR-04, SR-13 and SR-15 in one table."""
    issuing = [cell for cell in MATRIX if verdict(cell).outcome is Outcome.ISSUED]
    assert {(cell.kind, cell.signer, cell.challenge) for cell in issuing} == ISSUING
    assert len(issuing) == len(ISSUING)
    assert all((cell.aaa, cell.profile) == (AAA.YES, Profile.OWN) for cell in issuing)


@pytest.mark.parametrize("signer", SIGNERS, ids=lambda signer: signer.name)
@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
async def test_every_cell_ends_as_the_policy_says(bench: Bench, kind: Kind, signer: Signer) -> None:
    """Answer, certificates, recorded requests, spent challenges, and whether AAA was asked at all."""
    assert await disagreements(bench, cells([kind], [signer])) == ""


# --- beyond the matrix ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signer", STRANGERS, ids=lambda signer: signer.name)
async def test_a_trusted_ra_speaks_for_devices_and_an_impostor_of_our_ca_for_nobody(
    bench: Bench, signer: Signer
) -> None:
    """A CA of our CA's name over another key certifies nothing here: paths are validated by signature."""
    assert await disagreements(bench, cells(Kind, [signer], [Challenge.NONE, Challenge.RIGHT])) == ""


@pytest.mark.parametrize("approval", [Approval.OFF, Approval.FIRST, Approval.ALWAYS], ids=lambda each: each.name)
@pytest.mark.parametrize("proof", Proof, ids=lambda proof: proof.name)
async def test_the_rules_of_a_profile_change_what_they_say_and_nothing_else(
    bench: Bench, proof: Proof, approval: Approval
) -> None:
    """Anonymous profiles, profiles without challenges, and operators who approve: for every signer."""
    kinds, challenges = [Kind.PKCS_REQ, Kind.RENEWAL_REQ], [Challenge.NONE, Challenge.RIGHT]
    played = cells(kinds, Signer, challenges, [Profile.OWN], proof=proof, approval=approval)
    assert await disagreements(bench, played) == ""


@pytest.mark.parametrize(
    "begun_by", [Signer.SELF_MADE, Signer.OURS, Signer.SUDI, Signer.TRUSTED_RA], ids=lambda signer: signer.name
)
async def test_what_waits_is_collected_by_whoever_began_it(bench: Bench, begun_by: Signer) -> None:
    """RFC 8894 3.3.3: with the transactionID of another a poll finds nothing, whatever an operator has decided."""
    polls = cells([Kind.CERT_POLL], Signer, [Challenge.RIGHT], [Profile.OWN], approval=Approval.ALWAYS)
    found = []
    for standing, cell in product(Standing, polls):
        wanted = collected(begun_by=begun_by, polled_by=cell.signer, standing=standing, aaa=cell.aaa)
        found += difference(cell, await bench.collect(cell, begun_by, standing), expected(cell, wanted))
    assert "\n".join(found) == ""


@pytest.mark.parametrize("wanted", [Signer.OURS, Signer.EXPIRED, Signer.REVOKED, Signer.TENANT, Signer.FOREIGN])
async def test_a_holder_fetches_certificates_of_its_own_profile_and_no_others(bench: Bench, wanted: Signer) -> None:
    """GetCert: what another tenant has, or another CA has issued, is as unknown as what does not exist."""
    is_theirs = wanted in (Signer.TENANT, Signer.FOREIGN)
    outcome = Outcome.BAD_CERT_ID if is_theirs else Outcome.CERTIFICATE
    assert await bench.fetch(wanted) == outcome.value
