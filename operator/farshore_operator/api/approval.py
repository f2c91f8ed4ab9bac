"""Approval: what one person says to a hook that waits for people. It is written once, by `farshore approve`.

Its own kind, so that RBAC can let somebody approve and nothing else, and so that an admission policy can hold `user`
and `groups` to those of the request. See `docs/decisions/approvals.md`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from farshore_operator.api.cel import Rule
from farshore_operator.api.resource import AS_SET, Column, Definition, Model, Resource
from farshore_operator.api.values import Name, Text, Word


class Answer(StrEnum):
    """What the person says."""

    APPROVE = "Approve"
    REJECT = "Reject"


class ApprovalSpec(Model):
    """What one person says to a hook that waits."""

    rules = (
        Rule(
            "self == oldSelf",
            "an Approval is a record and cannot be changed: to take it back, reject the hook before it has gone on",
        ),
    )

    run: Name
    """FailoverRun whose hook waits."""
    hook: Word
    """Step of the run that waits, as in its status.steps, or the hook's name."""
    answer: Answer
    """Approve or Reject; one rejection fails the hook."""
    user: Annotated[str, Field(min_length=1, max_length=253)]
    """User name of the person, which must be that of the request."""
    groups: Annotated[tuple[Word, ...], Field(max_length=64, json_schema_extra=AS_SET)] = ()
    """Groups of the person that matter, which must be among those of the request."""
    comment: Text | None = None
    """What the person wants to have on record."""


class Approval(Resource):
    """What one person says to a hook of a run that waits for people. Written by `farshore approve`."""

    definition = Definition(
        "Approval",
        "approvals",
        ("fa",),
        (
            Column("Run", ".spec.run", description="The run whose hook waits."),
            Column("Hook", ".spec.hook", description="The hook."),
            Column("Answer", ".spec.answer", description="Approve or Reject."),
            Column("User", ".spec.user", description="Who says so."),
            Column("Comment", ".spec.comment", wide=True, description="What is on record."),
        ),
        written_by_operator=True,
    )

    kind: str = "Approval"
    spec: ApprovalSpec
    """What one person says to a hook that waits."""
