"""CEL rules that stand beside the models, and the pieces of CEL that several of them need.

The API server evaluates a rule when an object is written, and answers with the rule's message. A message says what is
wrong, and what to write instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

DURATION_PATTERN = r"^([0-9]{1,6}d)?([0-9]{1,6}(ms|s|m|h))*$"
QUANTITY_PATTERN = r"^[0-9]{1,19}(\.[0-9]{1,6})?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$"


@dataclass(frozen=True)
class Rule:
    """One rule of `x-kubernetes-validations`; `self` is the object, `oldSelf` what it was before the change.

    Attributes:
        rule: CEL expression that is true for what is allowed.
        message: the sentence that refuses the rest; for those of one line only.
        expression: CEL expression of a message that quotes the value; falls back to `message`.
        path: field below the object that the message points at, such as `.dataPort`.
    """

    rule: str
    message: str
    expression: str = ""
    path: str = ""

    def schema(self) -> dict[str, Any]:
        """Return the rule as a CRD writes it."""
        entry = {"rule": self.rule, "message": self.message}
        if self.expression:
            entry["messageExpression"] = self.expression
        if self.path:
            entry["fieldPath"] = self.path
        return entry


def checked(*rules: Rule, **extra: Any) -> dict[str, Any]:
    """Return what `Field(json_schema_extra=...)` takes to put rules on a single field."""
    return {"x-kubernetes-validations": [rule.schema() for rule in rules], **extra}


def immutable(what: str, instead: str) -> Rule:
    """Return the rule that a field keeps the value that it was created with."""
    return Rule("self == oldSelf", f"{what} cannot be changed: {instead}")


def literal(text: str) -> str:
    """Return a CEL string that holds `text` as it is (a raw string, for patterns)."""
    return f"r'{text}'"


def is_duration(field: str) -> str:
    """Return CEL that tells whether a string field holds a duration."""
    return f"size({field}) > 0 && {field}.matches({literal(DURATION_PATTERN)})"


def seconds(field: str) -> str:
    """Return CEL for the whole seconds of a string field that holds a duration; CEL itself does not know days.

    Numbers, not strings, are added up: what an integer becomes as a string has no bound that the API server accepts.
    """
    days = f"{field}.find('^[0-9]+d')"
    return f"(int('0' + {days}.replace('d', '')) * 86400 + duration('0s' + {field}.replace({days}, '')).getSeconds())"


def compare(left: str, operator: str, right: str) -> str:
    """Return CEL that compares two durations by the second; true while one is none, which its own rule refuses."""
    return f"!({is_duration(left)}) || !({is_duration(right)}) || {seconds(left)} {operator} {seconds(right)}"


def exactly_one(*fields: str) -> str:
    """Return CEL that is true if exactly one of the optional fields is present."""
    return "[" + ", ".join(f"has(self.{field})" for field in fields) + "].exists_one(present, present)"
