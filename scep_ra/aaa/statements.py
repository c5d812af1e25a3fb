"""SQL statements with named parameters, as operators write them, in the two ways that databases want them.

Values never become part of a statement. What stands in quotes or comments is left alone, and so are casts (::text).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from scep_ra.aaa.base import AccessRequest
from scep_ra.errors import ConfigurationError

_PARAMETERS: Final[Mapping[str, Callable[[AccessRequest], str | bool]]] = {
    "device": lambda request: str(request.device_id),
    "device_kind": lambda request: request.device_id.kind.value,
    "device_value": lambda request: request.device_id.value,
    "profile": lambda request: request.profile,
    "renewal": lambda request: request.renewal,
    "source": lambda request: request.source,
    "transaction_id": lambda request: request.transaction_id,
}
_BOOLEANS: Final = frozenset({"renewal"})
_TOKEN: Final = re.compile(
    r"""
      '(?:[^']|'')*' | "(?:[^"]|"")*" | --[^\n]* | /\*.*?\*/  # text, names, comments
    | (?P<tag>\$\w*\$).*?(?P=tag)                             # text of PostgreSQL, as in function bodies
    | ::                                                      # a cast
    | (?<![\w:]):(?P<name>[A-Za-z_]\w*)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A statement and the names of its parameters, in the order of their numbers."""

    sql: str
    parameters: tuple[str, ...]

    def values(self, request: AccessRequest) -> Mapping[str, str | bool]:
        """Return the value of each parameter for this question."""
        return {name: _PARAMETERS[name](request) for name in self.parameters}


def named(text: str) -> Statement:
    """Return the statement as SQLite wants it, with its :name; raise ConfigurationError for unknown names."""
    return Statement(sql=text, parameters=_names(text))


def numbered(text: str) -> Statement:
    """Return the statement as PostgreSQL wants it, with $1, $2, ...; raise ConfigurationError for unknown names.

    Each is declared as what it is, text or boolean: otherwise the server would want a value of the type of whatever
    stands beside it.
    """
    names = _names(text)

    def number(token: re.Match[str]) -> str:
        name = token["name"]
        if name is None:
            return token[0]
        return f"${names.index(name) + 1}::{'boolean' if name in _BOOLEANS else 'text'}"

    return Statement(sql=_TOKEN.sub(number, text), parameters=names)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(token["name"] for token in _TOKEN.finditer(text) if token["name"]))
    for name in names:
        if name not in _PARAMETERS:
            known = ", ".join(f":{each}" for each in _PARAMETERS)
            raise ConfigurationError(f"authorize has the parameter :{name}, which there is not; there are {known}")
    return names
