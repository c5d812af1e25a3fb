"""One server for all tests, with a profile for clients of today, one for old algorithms, one where operators decide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.programs import Program, require_program
from tests.support.server import RunningServer, make_data_directory, running_server

_TOML = """
[profile.default]

[profile.legacy.algorithms]
allow_sha1 = true
allow_triple_des = true
insecure_des_and_md5 = true

[profile.legacy.renewal]
allow_same_key = true

[profile.approved]
approval = "first"

[profile.approved.algorithms]
allow_sha1 = true
insecure_des_and_md5 = true
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.interop)


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(make_data_directory(tmp_path_factory.mktemp("server"), _TOML)) as server:
        yield server


@pytest.fixture
def server(shared_server: RunningServer) -> Iterator[RunningServer]:
    """Return the server that tests share, and fail the test that makes it log a traceback."""
    yield shared_server
    shared_server.log.check_calm()


@pytest.fixture(scope="session")
def openssl() -> Program:
    return require_program("openssl", package="openssl")
