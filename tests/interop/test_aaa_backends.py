"""A running server whose devices are entries, rows or lines elsewhere: what these say is in the certificate."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from scep_ra.pki.names import format_name
from tests.support.enrolling import certificate_in, pkcs_req, status_of
from tests.support.postgresql import PostgresqlServer
from tests.support.server import DataDirectory, make_data_directory, running_server
from tests.support.slapd import BASE, PASSWORD, READER, running_slapd

pytestmark = pytest.mark.interop

PROFILE = """
[profile.default]
authorizer = "corp"
subject = "serialNumber={device.value},CN={attribute.hostname}"
"""
LDAP = """
[aaa.corp]
type = "ldap"
url = "{url}"
ca_file = "{ca}"
bind_dn = "{bind_dn}"
password_file = "ldap.password"
base = "{base}"
attributes = {{hostname = "cn"}}
accept_if = {{raDeviceStatus = ["approved"]}}
"""
SQL = """
[aaa.corp]
type = "sql"
{where}
authorize = "SELECT allow, hostname FROM devices WHERE serial = :device_value"
"""
TABLE = "CREATE TABLE devices (serial text, hostname text, allow boolean)"
PROGRAM = """#!{python} -IS
import json, sys
serial = json.load(sys.stdin)["device"]["value"]
known = json.load(open("devices.json"))
print(json.dumps({{"hostname": known.get(serial, "")}}))
sys.exit(serial not in known)
"""


def data_directory(tmp_path: Path, table: str) -> DataDirectory:
    return make_data_directory(tmp_path, table + PROFILE)


def enrolls_those_permitted(data: DataDirectory, permit: Callable[[str, str], None]) -> None:
    """Insist that one device gets no certificate, and another one with the name that AAA has for it."""
    with running_server(data) as server:
        # Both are in the embedded registry, which nobody asks here but `challenge new`.
        unknown, known = server.register(), server.register()
        permit(known.device_serial, "router1")
        assert status_of(server, server.post(pkcs_req(server, unknown))) == "2"
        certificate = certificate_in(server, server.post(pkcs_req(server, known)), known)
        assert format_name(certificate.subject) == f"serialNumber={known.device_serial},CN=router1"


def test_an_entry_of_a_directory_names_the_device(tmp_path: Path) -> None:
    """OpenLDAP, by ldaps."""
    with running_slapd() as slapd:

        def permit(device_serial: str, name: str) -> None:
            slapd.add(
                f"dn: cn={name},{BASE}\nobjectClass: device\nobjectClass: raDevice\ncn: {name}\n"
                f"serialNumber: {device_serial}\nraDeviceStatus: approved\n"
            )

        table = LDAP.format(url=slapd.url_tls, ca=slapd.tls.ca, bind_dn=READER, base=BASE)
        data = data_directory(tmp_path, table)
        secret = data.path / "ldap.password"
        secret.touch(mode=0o600)
        secret.write_text(PASSWORD)
        enrolls_those_permitted(data, permit)


def test_a_row_of_postgresql_names_the_device(
    tmp_path: Path, postgresql_server: PostgresqlServer, postgresql_dsn: str
) -> None:
    """In a database that is not ours."""
    postgresql_server.sql(TABLE, dsn=postgresql_dsn)

    def permit(device_serial: str, name: str) -> None:
        postgresql_server.sql(f"INSERT INTO devices VALUES ('{device_serial}', '{name}', true)", dsn=postgresql_dsn)

    enrolls_those_permitted(data_directory(tmp_path, SQL.format(where=f'dsn = "{postgresql_dsn}"')), permit)


def test_a_row_of_sqlite_names_the_device(tmp_path: Path) -> None:
    """In a file that is not ours."""
    file = tmp_path / "inventory.sqlite"
    with closing(sqlite3.connect(file)) as database:
        database.execute(TABLE)

        def permit(device_serial: str, name: str) -> None:
            database.execute("INSERT INTO devices VALUES (?, ?, 1)", (device_serial, name))
            database.commit()

        enrolls_those_permitted(data_directory(tmp_path, SQL.format(where=f'path = "{file}"')), permit)


def test_a_program_names_the_device(tmp_path: Path) -> None:
    """It runs in the data directory."""
    program = tmp_path / "authorize"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o700)
    data = data_directory(tmp_path, f'[aaa.corp]\ntype = "command"\nargv = ["{program}"]\n')

    def permit(device_serial: str, name: str) -> None:
        (data.path / "devices.json").write_text(json.dumps({device_serial: name}))

    enrolls_those_permitted(data, permit)
