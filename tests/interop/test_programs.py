"""Claims about what happens where a foreign client is not installed."""

from __future__ import annotations

import pytest

from tests.support.programs import require_program

MISSING = "scep-ra-no-such-program"


def test_a_missing_program_skips_the_test_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the machine of a developer."""
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install strongswan-pki"):
        require_program(MISSING, package="strongswan-pki")


def test_with_ci_a_program_that_debian_has_may_not_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise nobody would notice that interoperation is no longer tested."""
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install strongswan-pki"):
        require_program(MISSING, package="strongswan-pki")


def test_a_program_that_debian_does_not_have_is_skipped_even_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing could be installed."""
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.skip.Exception, match="no package"):
        require_program(MISSING, package=None)
