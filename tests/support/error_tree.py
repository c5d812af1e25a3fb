"""Find the error classes of the product."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TypeVar

import scep_ra

_Error = TypeVar("_Error", bound=BaseException)


def import_everything() -> None:
    """Import every module of the package, so that all of its classes exist."""
    for module in pkgutil.walk_packages(scep_ra.__path__, "scep_ra."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def with_subclasses(error: type[_Error]) -> list[type[_Error]]:
    """Return a class and all classes below it, in the product's modules."""
    found = [error]
    for child in error.__subclasses__():
        if child.__module__.startswith("scep_ra."):
            found += with_subclasses(child)
    return list(dict.fromkeys(found))
