"""Authorize by a program: the question as JSON on its standard input, the answer as exit status and JSON output.

No shell reads anything, nothing of the question is on the command line, and nothing of our environment is handed
over. What the program starts ends with it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from scep_ra.aaa.attributes import accept_from
from scep_ra.aaa.base import AccessRequest, Decision, Defer, MalformedAnswer, Reject
from scep_ra.aaa.values import texts
from scep_ra.errors import ConfigurationError, Misconfigured, Unavailable
from scep_ra.strict_json import read_object

log = structlog.stdlib.get_logger(__name__)

_ACCEPT: Final = 0
_REJECT: Final = 1
_DEFER: Final = 2
_STDIN, _STDOUT, _STDERR = 0, 1, 2
_ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_ATTRIBUTES: Final = "attributes"
_REASON: Final = "reason"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSettings:
    """What an [aaa.NAME] of type "command" says; raises ConfigurationError when made."""

    argv: tuple[str, ...]
    directory: Path  # where it runs
    max_output_bytes: int = 65536
    max_running: int = 8

    def __post_init__(self) -> None:
        # A bare name would be looked for along PATH, where somebody may put another one.
        if not Path(self.argv[0]).is_absolute():
            raise ConfigurationError(f"argv begins with {self.argv[0]!r}: write the full path of the program")


def command_settings(options: Mapping[str, Any], *, data_directory: Path) -> CommandSettings:
    """Return the settings that the keys of a table make; raise ConfigurationError."""
    return CommandSettings(directory=data_directory, **options)


class CommandAuthorizer:
    """aaa.base.Authorizer over a program."""

    def __init__(self, settings: CommandSettings) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.max_running)

    async def authorize(self, request: AccessRequest) -> Decision:
        """Return what the exit status means; raise Unavailable, MalformedAnswer or Misconfigured."""
        async with self._slots:
            answer = await self._run(_question(request))
        self._log_complaint(answer.errors)
        if answer.status not in (_ACCEPT, _REJECT, _DEFER):
            raise Unavailable(f"{self._settings.argv[0]} {_ending(answer.status)}, which is no answer: look at the log")
        return _decide(answer.status, _parse(answer.output))

    async def check(self) -> None:
        """Verify that there is a program that we may run; raise Misconfigured."""
        program = self._settings.argv[0]
        if not await asyncio.to_thread(_is_program, program):
            raise Misconfigured(f"{program} is no program that we may run: look at argv, and at the rights of the file")

    async def _run(self, question: bytes) -> _Answer:
        loop = asyncio.get_running_loop()
        dialogue = _Dialogue(question, self._settings.max_output_bytes)
        try:
            transport, _ = await loop.subprocess_exec(
                lambda: dialogue,
                *self._settings.argv,
                cwd=self._settings.directory,
                env=_ENVIRONMENT,
                start_new_session=True,  # a process group of its own, to be ended as one
            )
        except OSError as error:
            raise _refusal(self._settings.argv[0], error) from error
        try:
            return await dialogue.answer
        finally:
            # Not before it is gone: to be closed asyncio would look for it, and take its exit status from who waits.
            await dialogue.end()
            transport.close()

    def _log_complaint(self, errors: bytes) -> None:
        lines = errors.decode("utf-8", "replace").split("\n")
        if lines[0]:
            log.warning("aaa_command_complains", program=self._settings.argv[0], said=lines[0], lines=len(lines))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What a program left when it ended."""

    status: int  # negative: the signal that ended it
    output: bytes
    errors: bytes


class _Dialogue(asyncio.SubprocessProtocol):
    """Feed a program and collect what it says, within bounds."""

    def __init__(self, question: bytes, max_bytes: int) -> None:
        self.answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._question = question
        self._max_bytes = max_bytes
        self._said = {_STDOUT: bytearray(), _STDERR: bytearray()}
        self._exited = asyncio.Event()
        self._transport: asyncio.SubprocessTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)  # noqa: S101 - asyncio promises it, mypy cannot see
        self._transport = transport
        stdin = transport.get_pipe_transport(_STDIN)
        assert isinstance(stdin, asyncio.WriteTransport)  # noqa: S101 - the same
        stdin.write(self._question)
        stdin.write_eof()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._said[fd] += data
        if len(self._said[fd]) > self._max_bytes and not self.answer.done():
            self.answer.set_exception(MalformedAnswer(f"the program said more than {self._max_bytes} octets"))

    def process_exited(self) -> None:
        # What it started may hold the pipes open, and nobody would ever see their end.
        self._kill()
        self._exited.set()

    def connection_lost(self, _error: Exception | None) -> None:
        """Answer: it ended, and everything that it said has been read."""
        assert self._transport is not None  # noqa: S101 - it was there before it is lost
        status = self._transport.get_returncode()
        assert status is not None  # noqa: S101 - asyncio calls after both
        if not self.answer.done():
            output, errors = (bytes(self._said[fd]) for fd in (_STDOUT, _STDERR))
            self.answer.set_result(_Answer(status=status, output=output, errors=errors))

    async def end(self) -> None:
        """End the program with all that it started, unless it has ended."""
        if not self._exited.is_set():
            self._kill()
            await self._exited.wait()

    def _kill(self) -> None:
        assert self._transport is not None  # noqa: S101 - it runs
        with suppress(ProcessLookupError):  # it was alone
            os.killpg(self._transport.get_pid(), signal.SIGKILL)


def _question(request: AccessRequest) -> bytes:
    device_id = request.device_id
    question = {
        "device": {"id": str(device_id), "kind": device_id.kind.value, "value": device_id.value},
        "profile": request.profile,
        "source": request.source,
        "renewal": request.renewal,
        "recheck": request.recheck,
        "transaction_id": request.transaction_id,
        # As text, because JSON readers round numbers of this size.
        "certificate_serial": None if request.certificate_serial is None else f"{request.certificate_serial:x}",
        "csr": base64.b64encode(request.csr).decode("ascii"),
    }
    return json.dumps(question).encode("ascii") + b"\n"


def _decide(status: int, said: Mapping[str, object]) -> Decision:
    reason = " ".join(texts(_REASON, said.get(_REASON)))
    if status == _REJECT:
        return Reject(reason=reason or "the program said no")
    if status == _DEFER:
        return Defer(reason=reason or "the program said not yet")
    nested = said.get(_ATTRIBUTES)
    attributes = nested if isinstance(nested, dict) else {name: said[name] for name in said if name != _REASON}
    return accept_from({name: texts(name, value) for name, value in attributes.items()})


def _parse(output: bytes) -> Mapping[str, object]:
    """Return the JSON object that was said; nothing is an empty one."""
    try:
        return read_object(output) if output.strip() else {}
    except ValueError as error:
        raise MalformedAnswer(f"the program said what is {error}: {output[:80]!r}") from error


def _ending(status: int) -> str:
    return f"ended with exit status {status}" if status >= 0 else f"was ended by signal {-status}"


def _is_program(path: str) -> bool:
    return Path(path).is_file() and os.access(path, os.X_OK)


def _refusal(program: str, error: OSError) -> Unavailable | Misconfigured:
    if isinstance(error, BlockingIOError):  # EAGAIN: too many processes
        return Unavailable(f"{program} cannot be run now: {error.strerror}")
    return Misconfigured(f"{program} cannot be run: {error.strerror}; look at argv, and at the rights of the file")
