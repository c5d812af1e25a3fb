"""A running server whose devices are entries of a FreeRADIUS: what the entry says is in the certificate."""

from __future__ import annotations

from pathlib import Path

import pytest

from scep_ra.pki.names import format_name
from tests.support.enrolling import certificate_in, pkcs_req, status_of
from tests.support.freeradius import SECRET, FreeRadius, device_entry, running_freeradius
from tests.support.server import DataDirectory, make_data_directory, running_server

pytestmark = pytest.mark.interop

TOML = """
[aaa.acs]
type = "radius"
servers = ["{address}"]
retransmit_s = 0.2
tries = 2

[profile.default]
authorizer = "acs"
subject = "serialNumber={{device.value}},CN={{attribute.hostname}}"
"""


def data_directory(tmp_path: Path, freeradius: FreeRadius) -> DataDirectory:
    data = make_data_directory(tmp_path, TOML.format(address=freeradius.address))
    secret = data.path / "radius.secret"
    secret.touch(mode=0o600)
    secret.write_text(SECRET)
    return data


def test_the_entry_decides_and_names_the_device(tmp_path: Path) -> None:
    """Without an entry there is no certificate; with one its attributes are in the certificate."""
    with running_freeradius(tmp_path / "freeradius", "") as freeradius:
        with running_server(data_directory(tmp_path, freeradius)) as server:
            # Both are in the embedded registry, which nobody asks here but `challenge new`.
            unknown, known = server.register(), server.register()
            freeradius.write_users(device_entry(known.device_serial, "scep-ra:hostname=router1"))
            assert status_of(server, server.post(pkcs_req(server, unknown))) == "2"
            certificate = certificate_in(server, server.post(pkcs_req(server, known)), known)
            assert format_name(certificate.subject) == f"serialNumber={known.device_serial},CN=router1"


def test_while_the_server_is_away_the_request_waits_and_then_goes_on(tmp_path: Path) -> None:
    """No answer is neither a yes nor a no: PENDING, and the same request succeeds when the server is back."""
    with running_freeradius(tmp_path / "freeradius", "") as freeradius:
        with running_server(data_directory(tmp_path, freeradius)) as server:
            device = server.register()
            request = pkcs_req(server, device)
            freeradius.stop()
            assert status_of(server, server.post(request)) == "3"
            freeradius.write_users(device_entry(device.device_serial, "scep-ra:hostname=router1"))
            freeradius.start()
            certificate_in(server, server.post(request), device)
