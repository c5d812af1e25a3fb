"""Tests of `scep_ra.web.paths`: every path that clients have been seen to use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.web.paths import resolve_profile

PROFILES = ("default", "lab")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "//",
        "/pkiclient.exe",
        "/scep",
        "/SCEP",
        "/scep/",
        "/scep/pkiclient.exe",
        "/scep/x/pkiclient.exe",
        "/cgi-bin/pkiclient.exe",
        "/CGI-BIN/PKICLIENT.EXE",
        "//cgi-bin//pkiclient.exe",
        "/any/prefix/pkiclient.exe",
        "/certsrv/mscep",
        "/certsrv/mscep/",
        "/certsrv/mscep/mscep.dll",
        "/certsrv/mscep/mscep.dll/",
        "/CertSrv/mscep/mscep.dll/pkiclient.exe",
        "/certsrv/mscep/pkiclient.exe",
        "/ejbca/publicweb/apply/scep/pkiclient.exe",
        "/ca/ee/ca/pkiclient",
        "/ca/cgi-bin/pkiclient.exe",
        "/v1/protocols/scep",
        "/mdm/scep/proxy/host,lab,ca,secret",
        "/static",
        "/static/pkiclient.exe",
        "/api/v1/scep",
        "/scep:8081/pkiclient.exe",
        "/cgi-bin:80/pkiclient.exe",
        "/certsrv/mscep/mscep.dll:8080",
        "http://ra.example",
        "http://ra.example:8080/scep?operation=GetCACaps",
        "HTTPS://ra.example/cgi-bin/pkiclient.exe",
        "/cgi-bin/pkiclient%2Eexe",
        "/scep?operation=GetCACert&message=/scep/lab",
        "/?operation=GetCACaps",
    ],
)
def test_a_path_without_a_known_name_means_the_default_profile(path: str) -> None:
    """Conventions of RFC 8894 4.1, Cisco, NDES, EJBCA, Dogtag, Fleet, SCEPman and Intune."""
    assert resolve_profile(path, PROFILES) == "default"


@pytest.mark.parametrize(
    "path",
    [
        "/scep/lab",
        "/scep/LAB/",
        "//scep//lab",
        "/scep/lab/pkiclient.exe?operation=GetCACaps",
        "/scep/lab/anything/else",
        "/scep/lab:8081/pkiclient.exe",
        "/scep/l%61b",
        "http://ra.example/scep/lab",
        "/ejbca/publicweb/apply/scep/lab/pkiclient.exe",
        "/ca/scep/lab/pkiclient.exe",
        "/ca/scep/lab",
        "/v1/lab/scep",
        "/v1/lab/scep/pkiclient.exe",
        "/v1/pki/roles/lab/scep",
        "/v1/pki/roles/lab/scep/pkiclient.exe",
        "/v1/protocols/scep/lab/pkiclient.exe",
        "/v1/protocols/scep/raProfile/lab/pkiclient.exe",
        "/api/v1/scep/lab",
        "/api/v1/scep/lab/pkiclient.exe",
    ],
)
def test_a_known_name_picks_its_profile(path: str) -> None:
    """The name stands where the convention has it, in any case of letters."""
    assert resolve_profile(path, PROFILES) == "lab"


@pytest.mark.parametrize(
    "path",
    [
        "/healthz",
        "/readyz",
        "/metrics",
        "/metrics/pkiclient.exe",
        "/HEALTHZ/pkiclient.exe",
        "/crl/default.crl",
        "/crl/pkiclient.exe",
        "/ocsp/pkiclient.exe",
        "/api/v1/devices",
        "/api/v1/pkiclient.exe",
        "/api",
        "/.well-known/est/cacerts",
        "/.well-known/pkiclient.exe",
        "/certsrv/mscep_admin/",
        "/certsrv/mscep_admin/pkiclient.exe",
        "/scepter",
        "/index.html",
        "/v1/protocols",
        "*",
        "%00",
        "ra.example:443",
    ],
)
def test_other_paths_are_not_scep(path: str) -> None:
    """What belongs to others, or to nobody, has no profile."""
    assert resolve_profile(path, PROFILES) is None


@pytest.mark.parametrize("path", ["/scep", "/scep/unknown", "/cgi-bin/pkiclient.exe"])
def test_without_a_default_profile_the_name_must_be_known(path: str) -> None:
    """An operator who defines no profile `default` has a strict server."""
    assert resolve_profile(path, {"lab"}) is None
    assert resolve_profile("/scep/lab", {"lab"}) == "lab"


def test_percent_escapes_are_undone_once() -> None:
    """A doubly escaped name stays unknown."""
    assert resolve_profile("/scep/l%2561b", PROFILES) == "default"


@given(st.text(max_size=300))
def test_any_target_gives_a_profile_that_exists_or_none(target: str) -> None:
    """No input raises, and no name comes back that is not in the table."""
    assert resolve_profile(target, PROFILES) in {*PROFILES, None}
