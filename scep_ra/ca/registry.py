"""Find a certification authority by the `type` of a [ca.NAME] table.

A type is built in, an entry point, or `package.module:Class`. Each is a factory: called with the Parts and the table's
other keys, it returns a CertificateAuthority or raises ConfigurationError or Misconfigured. None is implemented here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from scep_ra.ca.base import CertificateAuthority
from scep_ra.ca.directory import ensure_ca
from scep_ra.ca.hierarchy import CAParameters, Random
from scep_ra.ca.local import LocalCA, Runner
from scep_ra.errors import ConfigurationError
from scep_ra.plugins import find_factory

ENTRY_POINT_GROUP: Final = "scep_ra.certificate_authorities"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the running server lends to an authority; a new part is a new field, so factories keep working."""

    name: str  # NAME of the table
    data_directory: Path
    now: Callable[[], datetime]
    random: Random
    run: Runner


Options = Mapping[str, Any]
AuthorityFactory = Callable[[Parts, Options], CertificateAuthority]


def _make_local(parts: Parts, options: Options) -> LocalCA:
    """Take the keys of CAParameters and `crl_validity_h`."""
    parameters = {key: value for key, value in options.items() if key != "crl_validity_h"}
    try:
        wanted = CAParameters(**parameters)
        crl_validity = timedelta(hours=options["crl_validity_h"])
    except (TypeError, KeyError) as error:
        raise ConfigurationError(f"[ca.{parts.name}] does not describe a local CA: {error}") from error
    material = ensure_ca(parts.data_directory, parts.name, wanted, now=parts.now(), random=parts.random)
    return LocalCA(
        name=parts.name,
        signer=material.signer,
        chain=material.chain,
        crl_validity=crl_validity,
        now=parts.now,
        run=parts.run,
        random=parts.random,
    )


_BUILT_IN: Final[Mapping[str, AuthorityFactory]] = {"local": _make_local}


def load_authority(type_name: str, parts: Parts, options: Options) -> CertificateAuthority:
    """Make the authority of this type; raise ConfigurationError when there is none or it refuses its options."""
    factory = find_factory(type_name, built_in=_BUILT_IN, group=ENTRY_POINT_GROUP, noun="certification authority")
    return factory(parts, options)
