"""The base of every model that appears in a resource's status or a task: camelCase outside, snake_case inside.

The docstring below a field becomes its description in the resource's schema, which `kubectl explain` shows.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Model(BaseModel):
    """A frozen value; unknown fields are refused, so that a typing error never passes as a default."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid", use_attribute_docstrings=True
    )


class Status(Model):
    """A value read back from a status, where a newer version may have added fields: those are ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", use_attribute_docstrings=True
    )
