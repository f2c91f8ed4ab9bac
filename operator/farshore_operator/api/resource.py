"""The base of every kind: how models become YAML, what all kinds share, and what the CRD generator must know of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from farshore_operator.api.cel import Rule
from farshore_operator.api.naming import camel
from farshore_operator.api.values import Name

GROUP = "farshore.dev"
VERSION = "v1alpha1"
CATEGORY = "farshore"


class Model(BaseModel):
    """A frozen value in a resource. Fields of a newer version are ignored; the API server refuses unknown ones.

    The docstring below a field is its description in the CRD. `rules` are the CEL rules of the whole object.
    """

    model_config = ConfigDict(
        alias_generator=camel, populate_by_name=True, frozen=True, extra="ignore", use_attribute_docstrings=True
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Put the rules into the schema."""
        schema = handler(core_schema)
        if cls.rules:
            handler.resolve_ref_schema(schema)["x-kubernetes-validations"] = [rule.schema() for rule in cls.rules]
        return schema

    def dump(self) -> dict[str, Any]:
        """Return what goes to the API server: YAML names, strings for durations and sizes, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def map_by(*keys: str) -> dict[str, Any]:
    """Return what `Field(json_schema_extra=...)` takes for a list whose items are told apart by these fields."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


AS_SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}
"""What `Field(json_schema_extra=...)` takes for a list of distinct strings."""


class Reference(Model):
    """Another object of the same namespace."""

    name: Name
    """Name of the object, in the same namespace."""


class SecretKeyReference(Model):
    """A value in a Secret of the same namespace."""

    name: Name
    """Name of the Secret, in the same namespace."""
    key: Annotated[str, Field(min_length=1, max_length=253)]
    """Key in the Secret's data."""


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Model):
    """One observation of an object, as kstatus and kubectl wait understand it."""

    type: Annotated[str, Field(min_length=1, max_length=316)]
    """Name of the condition in CamelCase, such as Ready."""
    status: ConditionStatus
    """True, False or Unknown."""
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """The metadata.generation that the observation is about."""
    last_transition_time: datetime
    """When the status last changed."""
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    """Why, as one CamelCase word."""
    message: Annotated[str, Field(max_length=32768)] = ""
    """What, where, what to do next, and when it is retried."""


class ResourceStatus(Model):
    """What every status has."""

    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """The metadata.generation that this status is about."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32, json_schema_extra=map_by("type"))] = ()
    """What was observed: Ready, Reconciling and Stalled as kstatus defines them, then the kind's own."""

    def condition(self, type_: str) -> Condition | None:
        """Return the condition of this type, None if it was not observed yet."""
        return next((condition for condition in self.conditions if condition.type == type_), None)


class OwnerReference(Model):
    """An object that this one belongs to."""

    api_version: str
    """API version of the owner."""
    kind: str
    """Kind of the owner."""
    name: str
    """Name of the owner."""
    uid: str
    """UID of the owner."""
    controller: bool | None = None
    """Whether the owner manages this object."""


class Metadata(Model):
    """The part of metadata that Farshore reads. The API server defines it, so it is in no schema."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[OwnerReference, ...] = ()


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`; `wide` ones appear with -o wide only."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False
    description: str = ""


@dataclass(frozen=True)
class Definition:
    """What a CRD says beside its schema.

    Attributes:
        columns: columns of `kubectl get` after the name; the age is added at the end.
        written_by_operator: no defaults in the schema, because the operator (or a command) writes every field, and
            nobody declares such an object.
    """

    kind: str
    plural: str
    short_names: tuple[str, ...]
    columns: tuple[Column, ...] = field(default=())
    written_by_operator: bool = False


def ready_column() -> Column:
    """Return the column of the Ready condition."""
    return Column("Ready", '.status.conditions[?(@.type=="Ready")].status', description="Whether it works as declared.")


def message_column() -> Column:
    """Return the column of the Ready condition's message, shown with -o wide."""
    return Column(
        "Message", '.status.conditions[?(@.type=="Ready")].message', wide=True, description="Why, and what to do next."
    )


class Resource(Model):
    """An object of one of our kinds. Subclasses add `spec` and `status`."""

    definition: ClassVar[Definition]

    api_version: str = f"{GROUP}/{VERSION}"
    kind: str
    metadata: Metadata

    @classmethod
    def of(cls, body: Any) -> Self:
        """Read an object as the API server gives it (any mapping)."""
        return cls.model_validate(dict(body))
