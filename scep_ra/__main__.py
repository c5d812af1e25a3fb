"""`python -m scep_ra` is `scep-ra`."""

from __future__ import annotations

from scep_ra.cli.main import main

main()
