"""Programs authorize devices: real ones, as scripts."""

from __future__ import annotations

import asyncio
import json
import os
import select
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from structlog.testing import capture_logs

from scep_ra.aaa.base import Accept, AccessRequest, Decision, Defer, MalformedAnswer, Reject
from scep_ra.aaa.command import CommandAuthorizer, command_settings
from scep_ra.config_aaa import GUARD_KEYS, CommandConfig
from scep_ra.errors import ConfigurationError, Misconfigured, Unavailable
from scep_ra.identity.types import DeviceID, DeviceIDKind
from tests.support.authorizers import question

DOCUMENTATION: Final = Path(__file__).parents[2] / "docs" / "aaa.md"


def make(directory: Path, *argv: str, **options: Any) -> CommandAuthorizer:
    table = CommandConfig(argv=argv, **options).model_dump(exclude=set(GUARD_KEYS))
    return CommandAuthorizer(command_settings(table, data_directory=directory))


def shell(directory: Path, script: str, **options: Any) -> CommandAuthorizer:
    return make(directory, "/bin/sh", "-c", script, **options)


async def decide(authorizer: CommandAuthorizer, request: AccessRequest | None = None) -> Decision:
    async with asyncio.timeout(30):
        return await authorizer.authorize(request or question())


def children() -> set[str]:
    """Return the processes that we started and nobody has buried."""
    own = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {child for file in own for child in file.read_text().split()}


def descriptors() -> int:
    """Return how many files we have open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def ended(pid: int) -> None:
    """Wait until a process that was killed is gone, which may be nobody's child any more."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        readable, _, _ = await asyncio.to_thread(select.select, [watched], [], [], 20)
        assert readable
    finally:
        os.close(watched)


# --- what it decides ------------------------------------------------------------------------------------------------


async def test_exit_status_0_is_a_yes_with_what_the_program_says(tmp_path: Path) -> None:
    """As one object, or under `attributes` where a reason stands beside."""
    plain = '{"user": "alice", "services": ["vpn", "wifi"], "number": 7, "profile": null}'
    expected = Accept(attributes={"user": "alice", "number": "7"}, services=frozenset({"vpn", "wifi"}))
    assert await decide(shell(tmp_path, f"echo '{plain}'")) == expected
    assert await decide(shell(tmp_path, f"""echo '{{"attributes": {plain}, "reason": "x"}}'""")) == expected
    assert await decide(shell(tmp_path, """echo '{"user": "alice", "reason": "x"}'""")) == Accept(
        attributes={"user": "alice"}
    )


async def test_saying_nothing_is_a_plain_answer(tmp_path: Path) -> None:
    """The exit status is enough."""
    assert await decide(shell(tmp_path, "exit 0")) == Accept()
    assert await decide(shell(tmp_path, "exit 1")) == Reject(reason="the program said no")
    assert await decide(shell(tmp_path, "exit 2")) == Defer(reason="the program said not yet")


async def test_a_reason_comes_along(tmp_path: Path) -> None:
    """For log and operator."""
    say = """echo '{"reason": "stolen"}'; exit """
    assert await decide(shell(tmp_path, say + "1")) == Reject(reason="stolen")
    assert await decide(shell(tmp_path, say + "2")) == Defer(reason="stolen")


@pytest.mark.parametrize(
    ("script", "ending"),
    [("exit 3", "ended with exit status 3"), ("exit 127", "exit status 127"), ("kill -9 $$", "ended by signal 9")],
)
async def test_any_other_end_is_no_answer(tmp_path: Path, script: str, ending: str) -> None:
    """Never a yes, nor a no."""
    with pytest.raises(Unavailable, match=ending):
        await decide(shell(tmp_path, script))


@pytest.mark.parametrize("said", ["yes", "[1]", '{"a": ', '"x"', '{"user": {"a": 1}}', "[" * 50000])
async def test_garbage_is_no_answer(tmp_path: Path, said: str) -> None:
    """Though the exit status says yes."""
    (tmp_path / "said").write_text(said)
    with pytest.raises(MalformedAnswer):
        await decide(shell(tmp_path, "cat said"))


# --- what it gets ---------------------------------------------------------------------------------------------------


async def test_the_question_is_json_on_standard_input(tmp_path: Path) -> None:
    """The serial as text in hexadecimal, for JSON readers that round large numbers."""
    request = AccessRequest(
        device_id=DeviceID(kind=DeviceIDKind.SERIAL, value="SN1"),
        profile="vpn",
        source="192.0.2.1",
        renewal=True,
        certificate_serial=0x7F00FF,
        recheck=True,
        transaction_id="T1",
        csr=b"\x00\xff",
    )
    await decide(shell(tmp_path, "cat >question"), request)
    assert json.loads((tmp_path / "question").read_text()) == {
        "device": {"id": "serial:SN1", "kind": "serial", "value": "SN1"},
        "profile": "vpn",
        "source": "192.0.2.1",
        "renewal": True,
        "recheck": True,
        "transaction_id": "T1",
        "certificate_serial": "7f00ff",
        "csr": "AP8=",
    }


@pytest.mark.parametrize("text", ["$(touch x)", "`touch x`", "; touch x", "'\"\\", "a b", "é\u202e", "-rf", "%s", "{}"])
async def test_texts_of_strangers_arrive_to_the_letter(tmp_path: Path, text: str) -> None:
    """No shell reads them, and no command line shows them."""
    await decide(shell(tmp_path, "cat >question"), question(profile=text))
    assert json.loads((tmp_path / "question").read_text())["profile"] == text
    assert not (tmp_path / "x").exists()


async def test_it_inherits_nothing_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No environment, no open files but its three; it runs in the data directory."""
    monkeypatch.setenv("SCEP_RA_PASSWORD", "secret")
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        script = "env >environment; pwd >directory; ls /proc/self/fd >descriptors"
        await decide(shell(tmp_path, script))
    names = {line.partition("=")[0] for line in (tmp_path / "environment").read_text().splitlines()}
    assert names - {"PWD", "_", "OLDPWD", "SHLVL"} == {"PATH", "LANG"}
    assert (tmp_path / "directory").read_text().strip() == str(tmp_path)
    # The fourth is the directory that ls reads.
    assert len((tmp_path / "descriptors").read_text().split()) == 4


async def test_a_program_need_not_read_the_question(tmp_path: Path) -> None:
    """Longer than a pipe holds."""
    request = question(csr=bytes(1 << 20))
    assert await decide(shell(tmp_path, "exec 0<&-; exit 1"), request) == Reject(reason="the program said no")


async def test_the_first_line_of_complaint_goes_to_the_log(tmp_path: Path) -> None:
    """The others are counted."""
    with capture_logs() as logs:
        await decide(shell(tmp_path, "echo database is slow >&2; echo more >&2"))
    assert logs == [
        {
            "event": "aaa_command_complains",
            "log_level": "warning",
            "program": "/bin/sh",
            "said": "database is slow",
            "lines": 3,
        }
    ]


# --- trouble --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", ["1", "2"])
async def test_too_much_output_ends_the_program(tmp_path: Path, stream: str) -> None:
    """It would go on for ever."""
    with pytest.raises(MalformedAnswer, match="more than 2048 octets"):
        await decide(shell(tmp_path, f"echo $$ >pid; exec yes >&{stream}", max_output_bytes=2048))
    await ended(int((tmp_path / "pid").read_text()))


async def test_what_a_program_leaves_running_ends_with_it(tmp_path: Path) -> None:
    """It holds the pipes open, and would be waited for."""
    script = 'sleep 1000 & echo $! >pid; echo \'{"user": "alice"}\''
    assert await decide(shell(tmp_path, script)) == Accept(attributes={"user": "alice"})
    await ended(int((tmp_path / "pid").read_text()))


async def test_who_gives_up_ends_the_program_and_all_that_it_started(tmp_path: Path) -> None:
    """No process, no zombie and no descriptor is left."""
    before = children(), descriptors()
    os.mkfifo(tmp_path / "pids")
    script = "trap '' TERM INT HUP; sleep 1000 & echo $$ $! >pids; wait"
    asked = asyncio.create_task(decide(shell(tmp_path, script)))
    pids = await asyncio.to_thread((tmp_path / "pids").read_text)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    assert asked.cancelled()
    for pid in pids.split():
        await ended(int(pid))
    assert (children(), descriptors()) == before


async def test_a_hundred_questions_leave_nothing_behind(tmp_path: Path) -> None:
    """And no more programs run at a time than may."""
    before = children(), descriptors()
    script = "mkdir running.$$; ls -d running.* | wc -l >>counts; rmdir running.$$"
    authorizer = shell(tmp_path, script, max_running=3)
    assert await asyncio.gather(*(decide(authorizer) for _ in range(100))) == [Accept()] * 100
    assert max(map(int, (tmp_path / "counts").read_text().split())) <= 3
    assert (children(), descriptors()) == before


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (None, 0, "No such file or directory"),
        ("#!/bin/sh\n", 0o600, "Permission denied"),
        ("no interpreter named", 0o700, "Exec format error"),
    ],
)
async def test_what_cannot_be_run_needs_mending(tmp_path: Path, content: str | None, mode: int, reason: str) -> None:
    """With the system's word."""
    program = tmp_path / "program"
    if content is not None:
        program.write_text(content)
        program.chmod(mode)
    with pytest.raises(Misconfigured, match=f"cannot be run: {reason}; look at argv"):
        await decide(make(tmp_path, str(program)))


async def test_a_machine_without_room_for_a_process_may_have_some_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As fork(2) tells it."""

    async def refuse(*_arguments: object, **_options: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(asyncio.get_running_loop(), "subprocess_exec", refuse)
    with pytest.raises(Unavailable, match="cannot be run now"):
        await decide(shell(tmp_path, "exit 0"))


async def test_check_looks_at_the_program_without_running_it(tmp_path: Path) -> None:
    """It may cost, or keep record."""
    await make(tmp_path, sys.executable, "no-such-script").check()
    with pytest.raises(Misconfigured, match="is no program that we may run"):
        await make(tmp_path, str(tmp_path / "missing")).check()


def test_a_program_is_named_by_its_full_path(tmp_path: Path) -> None:
    """What PATH finds may be somebody else's."""
    with pytest.raises(ConfigurationError, match="argv begins with 'authorize': write the full path"):
        make(tmp_path, "authorize")


async def test_the_program_of_the_documentation_works(tmp_path: Path) -> None:
    """As it stands there, but for the paths."""
    section = DOCUMENTATION.read_text("utf-8").partition("\n## Command\n")[2]
    source = section.partition("```python\n")[2].partition("```")[0]
    devices, program = tmp_path / "devices", tmp_path / "authorize-device"
    program.write_text(
        source.replace("/usr/bin/python3", sys.executable).replace("/etc/scep-ra/devices", str(devices)), "utf-8"
    )
    program.chmod(0o700)
    authorizer = make(tmp_path, str(program))
    with pytest.raises(Unavailable, match="exit status 3"):
        await decide(authorizer)
    devices.write_text("SN1\nSN2\n")
    assert await decide(authorizer) == Accept()
    assert await decide(authorizer, question("SN3")) == Reject(reason="not in the file")
