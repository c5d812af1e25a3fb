"""`scep-ra enroll`, `getca` and `getcaps`: a SCEP client for any server, for tests and for devices without one.

The protocol is `scep.client`'s, HTTP `cli.scep_endpoint`'s; here are options, files and words.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TextIO, assert_never

import click

from scep_ra.cli.key_files import KEY_MODE, PUBLIC_MODE, check_absent, read_chain, read_key, read_pair, write_new
from scep_ra.cli.options import Command
from scep_ra.cli.output import Record, echo_records, pem, timestamp
from scep_ra.cli.parameters import json_option
from scep_ra.cli.scep_endpoint import NotOffered, ScepEndpoint, open_endpoint
from scep_ra.cli.scep_options import (
    allow_weak_option,
    ca_identifier_option,
    fingerprint_option,
    force_option,
    read_names,
    read_subject,
    timeout_option,
    url_argument,
)
from scep_ra.errors import ScepRaError
from scep_ra.parts import utc_now
from scep_ra.pki import oids
from scep_ra.pki.algorithms import Cipher, Digest
from scep_ra.pki.certificates import Certificate, Extension
from scep_ra.pki.csr import build_request
from scep_ra.pki.errors import AlgorithmRefused
from scep_ra.pki.keys import SoftwareKey, generate_key
from scep_ra.pki.names import format_name
from scep_ra.scep.client import (
    Answer,
    ClientRules,
    ClientTransaction,
    Failed,
    IssuedCertificate,
    Requester,
    RetrievedCRL,
    StillPending,
    self_signed_certificate,
    transaction_id_for,
)
from scep_ra.scep.discovery import CABundle, ChosenAlgorithms, check_fingerprint, choose_algorithms
from scep_ra.scep.errors import ReplyError
from scep_ra.scep.policy import AlgorithmPolicy
from scep_ra.scep.terms import Capability, FailInfo

STILL_PENDING: Final = 4
_KEY_TYPES: Final = ("rsa-2048", "rsa-3072", "rsa-4096", "ec-p256", "ec-p384")
_DIGESTS: Final = (Digest.SHA1, Digest.SHA256, Digest.SHA384, Digest.SHA512)
_CIPHERS: Final = (Cipher.TRIPLE_DES, Cipher.AES128, Cipher.AES192, Cipher.AES256)
_ADVICE: Final = {
    FailInfo.BAD_ALG: "it does not accept this digest, cipher or kind of key: see `scep-ra getcaps`",
    FailInfo.BAD_MESSAGE_CHECK: "it could not verify or decrypt the request: was it encrypted to its RA certificate?",
    FailInfo.BAD_REQUEST: "are challenge and subject right, is the device registered, may it have another certificate?",
    FailInfo.BAD_TIME: "the clocks disagree: set this machine's",
    FailInfo.BAD_CERT_ID: "it knows no such certificate or request",
}


class EnrollmentFailed(ScepRaError):
    """The server answered FAILURE."""


# --- getcaps and getca ---------------------------------------------------------------------------------------------


@click.command(cls=Command, epilog="Example:  scep-ra getcaps http://127.0.0.1:8000/scep")
@url_argument
@ca_identifier_option
@timeout_option
@json_option
def getcaps(url: str, ca_identifier: str, timeout: float, *, as_json: bool) -> None:
    """Show what a SCEP server announces.

    The last line says what a client makes of it.
    """

    async def ask() -> frozenset[Capability | str]:
        async with open_endpoint(url, ca_identifier=ca_identifier, timeout_s=timeout) as endpoint:
            return await endpoint.capabilities()

    announced = asyncio.run(ask())
    chosen = choose_algorithms(announced, allow_weak=True)
    facts = {
        "digest": chosen.digest.value,
        "cipher": chosen.cipher.value,
        "post": chosen.post,
        "renewal": chosen.renewal,
    }
    if as_json:
        click.echo(json.dumps({"capabilities": sorted(announced), **facts}, indent=2))
        return
    for word in sorted(announced):
        click.echo(word if word in set(Capability) else f"{word!a} (not in RFC 8894)")
    method, renewal = "POST" if chosen.post else "GET", "RenewalReq" if chosen.renewal else "PKCSReq"
    click.echo(f"a client uses {chosen.digest}, {chosen.cipher}, {method}, renews with {renewal}")


@click.command(cls=Command, epilog="Example:  scep-ra getca http://127.0.0.1:8000/scep -o trust")
@url_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory to write ca.pem (the CA and those above it) and ra.pem, ra-encryption.pem into.",
)
@fingerprint_option
@ca_identifier_option
@allow_weak_option
@timeout_option
@force_option
@json_option
def getca(  # noqa: PLR0917 - click passes by name
    url: str,
    output: Path | None,
    fingerprint: str | None,
    ca_identifier: str,
    allow_weak: bool,
    timeout: float,
    force: bool,
    *,
    as_json: bool,
) -> None:
    """Show the CA and RA certificates of a SCEP server.

    They come unauthenticated: compare a fingerprint before you trust them.
    """

    async def ask() -> CABundle:
        async with open_endpoint(url, ca_identifier=ca_identifier, timeout_s=timeout) as endpoint:
            return await endpoint.ca_certificates(weak_digests=allow_weak)

    bundle = asyncio.run(ask())
    if fingerprint is not None:
        check_fingerprint(bundle, fingerprint)
    if output is not None:
        files = _bundle_files(bundle, output)
        if not force:
            check_absent(*files)
        for path, octets in files.items():
            write_new(path, octets, mode=PUBLIC_MODE)
    echo_records([_record(bundle, certificate) for certificate in bundle.certificates], as_json=as_json)


def _bundle_files(bundle: CABundle, directory: Path) -> dict[Path, bytes]:
    files = {directory / "ca.pem": pem(each.der for each in bundle.path(bundle.issuer))}
    if bundle.signing != bundle.issuer:
        files[directory / "ra.pem"] = pem([bundle.signing.der])
    if bundle.encryption != bundle.signing:
        files[directory / "ra-encryption.pem"] = pem([bundle.encryption.der])
    return files


def _record(bundle: CABundle, certificate: Certificate) -> Record:
    roles = {"issues": bundle.issuer, "signs answers": bundle.signing, "receives requests": bundle.encryption}
    return {
        "role": ", ".join(role for role, holder in roles.items() if holder == certificate),
        "subject": format_name(certificate.subject),
        "issuer": format_name(certificate.issuer),
        "serial": f"{certificate.certificate_serial:x}",
        "not_before": timestamp(certificate.not_before),
        "not_after": timestamp(certificate.not_after),
        "sha256": certificate.fingerprint(),
        "sha1": certificate.fingerprint("sha1"),
    }


# --- enroll --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Enrollment:
    """The options of `enroll`."""

    url: str
    subject: bytes | None
    names: bytes | None  # DER GeneralNames
    challenge: str | None
    challenge_file: TextIO | None
    key: Path | None
    key_type: str
    output: Path
    key_out: Path | None
    cert_out: Path | None
    fingerprint: str | None
    ca_identifier: str
    renew: Path | None
    renew_key: Path | None
    signer_cert: Path | None
    signer_key: Path | None
    poll_interval: float
    max_poll_time: float
    digest: str | None
    cipher: str | None
    allow_weak: bool
    timeout: float
    force: bool

    @property
    def key_path(self) -> Path:
        """Return where the key is, or will be."""
        return self.key or self.key_out or self.output / "device.key"

    @property
    def certificate_path(self) -> Path:
        """Return where the certificate will be."""
        return self.cert_out or self.output / "device.pem"

    @property
    def ca_path(self) -> Path:
        """Return where the CA certificates will be."""
        return self.certificate_path.with_name("ca.pem")


@click.command(
    cls=Command,
    epilog="Example:  scep-ra enroll http://127.0.0.1:8000/scep --subject CN=r1,serialNumber=FOC1234X0AB -o r1"
    "\n\nExit status: as for scep-ra, and 4 when the request still waits for approval.",
)
@url_argument
@click.option(
    "--subject", callback=read_subject, help="Name to ask for.  [default with --renew: that of the certificate]"
)
@click.option(
    "--san", "names", multiple=True, callback=read_names, help="dns:, uri:, ip: or email: name; may be repeated."
)
@click.option("--challenge", envvar="SCEP_RA_CHALLENGE", help="One-time challenge; others see it in the process list.")
@click.option("--challenge-file", type=click.File("r"), help="File with the challenge, - for standard input.")
@click.option("--key", type=click.Path(path_type=Path), help="Private key to use, PEM.  [default: a new one]")
@click.option("--key-type", type=click.Choice(_KEY_TYPES), default="rsa-2048", show_default=True, help="Of a new key.")
@click.option(
    "-o",
    "--out",
    "output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Directory for device.key, device.pem and ca.pem.  [default: this directory]",
)
@click.option("--key-out", type=click.Path(path_type=Path), help="File for a new key.")
@click.option("--cert-out", type=click.Path(path_type=Path), help="File for the certificate; ca.pem goes beside it.")
@fingerprint_option
@ca_identifier_option
@click.option("--renew", type=click.Path(path_type=Path), help="Certificate to renew; no challenge is needed then.")
@click.option("--renew-key", type=click.Path(path_type=Path), help="Private key of the certificate to renew.")
@click.option(
    "--signer-cert",
    type=click.Path(path_type=Path),
    help="Certificate of another CA to sign with, in place of a challenge: a manufacturer's (IDevID) or an RA's; "
    "with those of the CAs above it behind it.",
)
@click.option("--signer-key", type=click.Path(path_type=Path), help="Private key of --signer-cert.")
@click.option(
    "--poll-interval",
    type=click.FloatRange(min=0, min_open=True),
    default=5,
    show_default=True,
    help="Seconds between questions whether a waiting request is approved.",
)
@click.option(
    "--max-poll-time", type=click.FloatRange(min=0), default=300, show_default=True, help="Seconds to go on asking."
)
@click.option(
    "--digest",
    type=click.Choice([each.value for each in _DIGESTS]),
    help="[default: the strongest that the server announces]",
)
@click.option(
    "--cipher", type=click.Choice([each.value for each in _CIPHERS]), help="[default: AES, if the server announces it]"
)
@allow_weak_option
@timeout_option
@force_option
def enroll(**given: Any) -> None:
    """Get a certificate from a SCEP server, or renew one.

    A new key is written before the request leaves, so that a certificate that comes late finds it: call again with
    --key to ask for that certificate.
    """
    options = _Enrollment(**given)
    _check_usage(options)
    order = _order(options)
    bundle, chosen = asyncio.run(_discover(options))
    if options.key is None:
        write_new(options.key_path, order.key.private_pem(), mode=KEY_MODE)
    try:
        answer = asyncio.run(_exchange(options, order, bundle, chosen))
    except ReplyError as error:
        if isinstance(error.__cause__, AlgorithmRefused):
            raise ReplyError(f"{error}: give --allow-weak if this server knows no better") from None
        raise
    match answer:
        case IssuedCertificate(certificate=certificate):
            write_new(options.certificate_path, pem([certificate.der]), mode=PUBLIC_MODE)
            write_new(options.ca_path, pem(each.der for each in bundle.path(bundle.issuer)), mode=PUBLIC_MODE)
            click.echo(
                f"{options.certificate_path}: {format_name(certificate.subject)}, "
                f"serial {certificate.certificate_serial:x}, until {timestamp(certificate.not_after)}"
            )
        case StillPending():
            click.echo(
                f"not approved yet: call again with --key {options.key_path} to ask for the certificate", err=True
            )
            raise click.exceptions.Exit(STILL_PENDING)
        case Failed(fail_info=fail_info, text=text):
            advice = _ADVICE[fail_info] if fail_info is not None else "it gives no reason that RFC 8894 knows"
            # What the server says is its reason; advice goes by one of five numbers, and may miss it.
            reason = f"{text!a} ({advice})" if text else advice
            raise EnrollmentFailed(f"the server refuses the request: {reason}")
        case RetrievedCRL():  # pragma: no cover - only GetCRL is answered so
            raise EnrollmentFailed("the server answers with a CRL")
        case _:
            assert_never(answer)


def _check_usage(options: _Enrollment) -> None:
    if (options.renew is None) != (options.renew_key is None):
        raise click.UsageError("--renew and --renew-key go together: the old certificate and its key sign the request")
    if (options.signer_cert is None) != (options.signer_key is None):
        raise click.UsageError("--signer-cert and --signer-key go together: they sign the request")
    if options.renew is not None and options.signer_cert is not None:
        raise click.UsageError("give --renew or --signer-cert, not both: one certificate signs the request")
    if options.renew is None and options.subject is None:
        raise click.UsageError("--subject says whose certificate it is to be, such as --subject CN=router-1")
    if options.challenge is not None and options.challenge_file is not None:
        raise click.UsageError("give --challenge or --challenge-file, not both")
    if options.force:
        return
    check_absent(options.certificate_path, options.ca_path)
    if options.key is None and options.key_path.exists():
        path = options.key_path
        raise click.UsageError(f"{path} exists already: use it with --key {path}, or give --force to replace it")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What is asked for, and by whom."""

    key: SoftwareKey  # the one to be certified
    requester: Requester
    csr: bytes  # DER PKCS#10
    is_renewal: bool


def _order(options: _Enrollment) -> _Order:
    """Put the request together from files and options."""
    old: tuple[SoftwareKey, Certificate] | None = None
    if options.renew is not None and options.renew_key is not None:
        old = read_pair(options.renew_key, options.renew)
    subject = options.subject or (b"" if old is None else old[1].subject)
    challenge = options.challenge
    if options.challenge_file is not None:
        challenge = options.challenge_file.readline().rstrip("\r\n")
    key = generate_key(options.key_type) if options.key is None else read_key(options.key)
    csr = build_request(
        subject=subject,
        key=key,
        challenge_password=challenge,
        extensions=_requested_extensions(options.names, None if old is None else old[1]),
    )
    signing_key, certificate = (
        old or _foreign(options) or (key, self_signed_certificate(subject, key, utc_now(), secrets.token_bytes))
    )
    chain = () if options.signer_cert is None else read_chain(options.signer_cert)[1:]
    password = None if challenge is None else challenge.encode()
    return _Order(
        key=key,
        requester=Requester(key=signing_key, certificate=certificate, password=password, chain=chain),
        csr=csr,
        is_renewal=old is not None,
    )


def _foreign(options: _Enrollment) -> tuple[SoftwareKey, Certificate] | None:
    """Return key and certificate of another CA's making that are to sign."""
    if options.signer_cert is None or options.signer_key is None:
        return None
    return read_pair(options.signer_key, options.signer_cert)


def _requested_extensions(names: bytes | None, old: Certificate | None) -> tuple[Extension, ...]:
    """Ask for the names given, else for those of the certificate to be renewed."""
    if names is None and old is not None:
        names = old.extension(oids.SUBJECT_ALT_NAME)
    return () if names is None else (Extension(oid=oids.SUBJECT_ALT_NAME, critical=False, value=names),)


# --- enroll: the exchange


async def _discover(options: _Enrollment) -> tuple[CABundle, ChosenAlgorithms]:
    async with _endpoint(options) as endpoint:
        bundle = await endpoint.ca_certificates(weak_digests=options.allow_weak)
        _check_trust(bundle, options.fingerprint)
        return bundle, await _choose(endpoint, options)


def _endpoint(options: _Enrollment) -> AbstractAsyncContextManager[ScepEndpoint]:
    return open_endpoint(options.url, ca_identifier=options.ca_identifier, timeout_s=options.timeout)


async def _exchange(options: _Enrollment, order: _Order, bundle: CABundle, chosen: ChosenAlgorithms) -> Answer:
    """Ask, and go on asking while the request is pending and there is time."""
    client = ClientTransaction(
        bundle=bundle,
        requester=order.requester,
        transaction_id=transaction_id_for(order.key.spki),
        rules=_rules(chosen, options),
        random=secrets.token_bytes,
    )
    call = client.renew(order.csr, as_pkcs_req=not chosen.renewal) if order.is_renewal else client.enroll(order.csr)
    async with _endpoint(options) as endpoint:
        answer = client.receive(await endpoint.send(call, post=chosen.post))
        clock = asyncio.get_running_loop().time
        end = clock() + options.max_poll_time
        while isinstance(answer, StillPending) and clock() + options.poll_interval <= end:
            await asyncio.sleep(options.poll_interval)
            answer = client.receive(await endpoint.send(client.poll(), post=chosen.post))
    return answer


def _check_trust(bundle: CABundle, fingerprint: str | None) -> None:
    if fingerprint is not None:
        check_fingerprint(bundle, fingerprint)
        return
    click.echo(
        f"warning: no --fingerprint, so the CA certificate is believed as it came: {bundle.issuer.fingerprint()}",
        err=True,
    )


async def _choose(endpoint: ScepEndpoint, options: _Enrollment) -> ChosenAlgorithms:
    """Choose by what the server announces and the command line says; a server without GetCACaps announces nothing."""
    try:
        announced = await endpoint.capabilities()
    except NotOffered:
        announced = frozenset()
    is_said = options.digest is not None and options.cipher is not None
    chosen = choose_algorithms(announced, allow_weak=options.allow_weak or is_said)
    return replace(
        chosen,
        digest=Digest(options.digest) if options.digest else chosen.digest,
        cipher=Cipher(options.cipher) if options.cipher else chosen.cipher,
    )


def _rules(chosen: ChosenAlgorithms, options: _Enrollment) -> ClientRules:
    """Answers may be as weak as the requests."""
    replies = AlgorithmPolicy.of(
        sha1=options.allow_weak or chosen.digest is Digest.SHA1,
        triple_des=options.allow_weak or chosen.cipher is Cipher.TRIPLE_DES,
        # micromdm answers in DES whatever it was asked in; what it hides is a certificate.
        des_and_md5=options.allow_weak,
        password_envelope=True,
    )
    return ClientRules(digest=chosen.digest, cipher=chosen.cipher, replies=replies)
