"""What every table of the configuration is made of: its base class and the alphabet of names.

Apart from `config` so that families of tables (`config_aaa`) can stand in modules of their own. No tables here.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

# Names appear in URLs and file names, so the alphabet is narrow and nothing in it can leave a directory.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,64}$")]


class Table(BaseModel):
    """Base of all tables: unknown keys are refused, values are of the written type, nothing changes afterwards."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
