"""Texts with variables of the question in braces, as RADIUS user names and LDAP filters are configured.

Values stay values: nothing in them is read as a variable, and what has a grammar of its own escapes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from scep_ra.aaa.base import AccessRequest
from scep_ra.errors import ConfigurationError

_VARIABLES: Final[Mapping[str, Callable[[AccessRequest], str]]] = {
    "device": lambda request: str(request.device_id),
    "device.kind": lambda request: request.device_id.kind.value,
    "device.value": lambda request: request.device_id.value,
    "profile": lambda request: request.profile,
}
_KNOWN: Final = ", ".join(f"{{{name}}}" for name in _VARIABLES)
_BRACES: Final = re.compile(r"\{([^{}]*)\}|[{}]")


def check_template(text: str) -> None:
    """Raise ConfigurationError for a variable that does not exist, or a brace that is not closed."""
    for found in _BRACES.finditer(text):
        if found[1] not in _VARIABLES:
            raise ConfigurationError(f"{text!r}: {found[0]} is no variable; there are {_KNOWN}")


def fill_template(text: str, request: AccessRequest, *, escape: Callable[[str], str] = str) -> str:
    """Return a checked template with the values of this question, each escaped."""
    return _BRACES.sub(lambda found: escape(_VARIABLES[found[1]](request)), text)
