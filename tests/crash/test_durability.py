"""Claims about what is on disk when an answer leaves: SIGKILL cannot tell, as the kernel survives it; strace can."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.support.fleet import many_connections, register, send
from tests.support.node import Node, make_site
from tests.support.programs import require_program

ENROLLMENTS: Final = 20
_CALLS: Final = "pwrite64,write,fsync,fdatasync,sendto,sendmsg"
_WAL: Final = "scep-ra.sqlite-wal>"
# "PID call(FD<PATH>, ..." and, when another thread was faster, its end on a later line.
_BEGIN: Final = re.compile(r"^(?P<pid>\d+) +(?P<text>\w+\(.*?)(?P<unfinished> <unfinished \.\.\.>)?$")
_RESUMED: Final = re.compile(r"^(?P<pid>\d+) +<\.\.\. \w+ resumed>(?P<text>.*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A system call, or, when another thread came in between, its begin or its end."""

    text: str  # as strace has it; of an end, begin and all
    begins: bool
    ends: bool

    @property
    def is_write(self) -> bool:
        """Tell whether octets go into the log, which holds every commit until it is merged."""
        return self.begins and self.text.startswith(("pwrite64(", "write(")) and _WAL in self.text

    @property
    def is_sync(self) -> bool:
        """Tell whether all of the log is on disk now."""
        is_call = self.text.startswith(("fsync(", "fdatasync(")) and _WAL in self.text
        return is_call and self.ends and self.text.endswith("= 0")

    @property
    def is_answer(self) -> bool:
        """Tell whether a CertRep begins to leave."""
        is_call = self.text.startswith(("sendto(", "sendmsg(", "write("))
        return is_call and self.begins and "application/x-pki-message" in self.text


def read_calls(lines: Iterable[str]) -> Iterator[Call]:
    """Yield the calls of all threads in their order."""
    begun: dict[str, str] = {}
    for line in lines:
        if found := _RESUMED.match(line):
            yield Call(text=begun.pop(found["pid"]) + found["text"], begins=False, ends=True)
        elif found := _BEGIN.match(line):
            if found["unfinished"]:
                begun[found["pid"]] = found["text"]
            yield Call(text=found["text"], begins=True, ends=not found["unfinished"])


def test_a_sync_counts_from_its_end_and_an_answer_from_its_begin() -> None:
    """Threads interrupt one another; the trace then has a call on two lines."""
    trace = """\
11 pwrite64(7</v/scep-ra.sqlite-wal>, "x", 1, 0) = 1
11 fdatasync(7</v/scep-ra.sqlite-wal> <unfinished ...>
12 sendto(9<socket:[5]>, "HTTP/1.1 200 OK application/x-pki-message", 41, 0, NULL, 0 <unfinished ...>
11 <... fdatasync resumed>) = 0
12 <... sendto resumed>) = 41
12 +++ exited with 0 +++"""
    calls = list(read_calls(trace.splitlines()))
    assert [call.is_write for call in calls] == [True, False, False, False, False]
    assert [call.is_sync for call in calls] == [False, False, False, True, False]
    assert [call.is_answer for call in calls] == [False, False, True, False, False]


@pytest.mark.slow
async def test_no_answer_leaves_before_its_commits_are_on_disk(tmp_path: Path) -> None:
    """SR-20: two syncs of the write-ahead log before each SUCCESS, and not an octet in it that is not synced."""
    strace, trace = require_program("strace", package="strace").path, tmp_path / "trace"
    _require_ptrace(strace)
    site = make_site(tmp_path)
    # -D: the server is our child, not strace's; -y: files by name.
    under = [strace, "-D", "-f", "--seccomp-bpf", "-y", "-s", "200", "-e", f"trace={_CALLS}", "-o", str(trace)]
    async with Node.running(site, under=under) as node, many_connections() as session:
        applicants = await register(site, ENROLLMENTS)
        for applicant in applicants:  # one after the other: whatever is written before an answer belongs to it
            status, body = await send(session, node.base_url, applicant.request(site.ra_certificate))
            assert status == 200
            assert applicant.certificate_in(body, site.ra_certificate) is not None
    answers = syncs = unsynced = 0
    for call in read_calls(trace.read_text().splitlines()):
        if call.is_write:
            unsynced += 1
        elif call.is_sync:
            syncs += unsynced > 0
            unsynced = 0
        elif call.is_answer:
            answers += 1
            assert unsynced == 0
            assert syncs >= 2  # the intent, the certificate
            syncs = 0
    assert answers == ENROLLMENTS


def _require_ptrace(strace: str) -> None:
    done = subprocess.run([strace, "-f", "-o", "/dev/null", "true"], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"processes must not be traced here: {done.stderr.strip()}")
