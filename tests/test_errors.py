"""Claims about the error classes as a whole: where each hangs, and that each is drawn where its family is described."""

from __future__ import annotations

import inspect
import sys
from http import HTTPStatus

import pytest

import scep_ra.errors
from scep_ra.cli.main import exit_status
from scep_ra.enrollment.errors import EnrollmentError
from scep_ra.errors import BackendError, ConfigurationError, Misconfigured, ScepRaError, Unavailable
from scep_ra.identity.errors import IdentityError
from scep_ra.pki.errors import PKIError
from scep_ra.revocation.service import RevocationError
from scep_ra.scep.errors import ProtocolError, RefusedMessage, TransportError
from tests.support.error_tree import import_everything, with_subclasses

import_everything()

ERRORS = with_subclasses(ScepRaError)
FAMILIES = {BackendError, EnrollmentError, IdentityError, PKIError, ProtocolError, RevocationError}


def name(error: type) -> str:
    return error.__name__


def drawing(module: str) -> str:
    return sys.modules[module].__doc__ or ""


@pytest.mark.parametrize("error", ScepRaError.__subclasses__(), ids=name)
def test_the_root_draws_every_family(error: type[ScepRaError]) -> None:
    """Whoever looks for what can go wrong starts there."""
    module = error.__module__.removeprefix("scep_ra.")
    entry = {"errors": error.__name__, "cli": "cli.*"}.get(module.partition(".")[0], f"{module}.{error.__name__}")

    assert f"── {entry} " in drawing(scep_ra.errors.__name__)


@pytest.mark.parametrize(
    "error",
    [
        error
        for family in (BackendError, EnrollmentError, IdentityError, ProtocolError)
        for error in with_subclasses(family)
    ],
    ids=name,
)
def test_a_family_draws_its_members(error: type[ScepRaError]) -> None:
    """In the module of the family, unless a member lives beside what raises it alone."""
    family = next(each for each in FAMILIES if issubclass(error, each))
    lives_elsewhere = error.__module__ != family.__module__ and issubclass(error, BackendError)

    assert lives_elsewhere or error.__name__ in drawing(family.__module__)


@pytest.mark.parametrize("error", ERRORS, ids=name)
def test_every_error_says_when_it_is_raised(error: type[ScepRaError]) -> None:
    """In a docstring of its own."""
    assert (error.__dict__.get("__doc__") or "").strip()
    assert inspect.getdoc(error)


@pytest.mark.parametrize("error", with_subclasses(TransportError), ids=name)
def test_every_transport_error_has_an_http_status(error: type[TransportError]) -> None:
    """Of the client's making, or of something that is not offered here."""
    assert HTTPStatus(error.http_status) in (
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.METHOD_NOT_ALLOWED,
        413,
        HTTPStatus.NOT_IMPLEMENTED,
    )


@pytest.mark.parametrize(
    "error",
    [*with_subclasses(RefusedMessage), *with_subclasses(EnrollmentError), *with_subclasses(IdentityError)],
    ids=name,
)
def test_codes_are_words_for_programs(error: type[RefusedMessage | EnrollmentError | IdentityError]) -> None:
    """Lower case with underscores, stable, so that a log can be searched for them."""
    assert error.code.replace("_", "").islower()


def test_errors_of_our_own_api_are_none_of_these() -> None:
    """Misuse is a TypeError or ValueError, so that nobody handles it by accident."""
    assert not [error for error in ERRORS if issubclass(error, (TypeError, ValueError, OSError))]


@pytest.mark.parametrize(
    ("error", "status"),
    [(ConfigurationError, 2), (Misconfigured, 2), (Unavailable, 3)],
)
def test_the_command_line_tells_them_apart(error: type[ScepRaError], status: int) -> None:
    """A script can tell what to mend from what to repeat."""
    assert {exit_status(each("x")) for each in with_subclasses(error)} == {status}
