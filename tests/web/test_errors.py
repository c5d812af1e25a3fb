"""Claims about the table from errors to the wire: it is complete, and it gives nothing away."""

from __future__ import annotations

import pytest

from scep_ra.enrollment.errors import EnrollmentError, UnknownCertificate
from scep_ra.scep.errors import RefusedMessage
from scep_ra.scep.terms import FailInfo
from scep_ra.web.errors import PUBLIC_TEXT, public_failure
from tests.support.error_tree import with_subclasses

REFUSALS: list[type[RefusedMessage | EnrollmentError]] = [
    *with_subclasses(RefusedMessage),
    *with_subclasses(EnrollmentError),
]


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: error.__name__)
def test_every_refusal_has_a_fail_info_and_a_sentence(error: type[RefusedMessage | EnrollmentError]) -> None:
    """RFC 8894 3.2.1.4; the reason itself does not leave the log."""
    info, text = public_failure(error("device SN1 of user bob is on the list of stolen ones"))

    assert info in FailInfo
    assert text == PUBLIC_TEXT[error.code]
    assert "bob" not in text


def test_every_sentence_is_in_use() -> None:
    """And short enough for a client that shows one line."""
    assert set(PUBLIC_TEXT) == {error.code for error in REFUSALS}
    assert all(len(text) <= 80 and text.isascii() and text.endswith(".") for text in PUBLIC_TEXT.values())


def test_only_certificates_that_are_not_there_are_a_bad_cert_id() -> None:
    """Every other rule of ours is badRequest, whatever it was."""
    infos = {error: public_failure(error("x"))[0] for error in with_subclasses(EnrollmentError)}

    assert infos.pop(UnknownCertificate) is FailInfo.BAD_CERT_ID
    assert set(infos.values()) == {FailInfo.BAD_REQUEST}
