"""What the vault's journal keeps of a run's inputs, machine by machine, and how they become one run again.

Each machine's journal has the inputs of that machine only, and the names of the others: a task of a plan with a
thousand machines would not fit into the API otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import ValidationError

from farshore_operator.api.failoverrun import FailoverRunSpec, RunKind, RunMember


def journalled(spec: FailoverRunSpec, member: RunMember) -> str:
    """Return the inputs of a run for the journal of one of its machines, as JSON."""
    own = spec.model_copy(update={"members": (member,)})
    names = [other.protected_vm for other in spec.members]
    return json.dumps({"spec": own.dump(), "members": names}, sort_keys=True)


def members_of(text: str) -> tuple[str, ...]:
    """Return the names of a journalled run's machines, in order; none if the text is no run's."""
    try:
        return tuple(json.loads(text)["members"])
    except (ValueError, KeyError, TypeError):
        return ()


def kind_of(text: str) -> RunKind | None:
    """Return what a journalled run does, None if this version does not know."""
    try:
        return RunKind(json.loads(text)["spec"]["kind"])
    except (ValueError, KeyError, TypeError):
        return None


def spec_of(texts: Mapping[str, str], *, partial: bool = False) -> FailoverRunSpec | None:
    """Return the inputs of a run from the journals of its machines, by machine.

    None if one that took part is missing among them (unless `partial`), or if they are of no run that this version
    knows.
    """
    parts: dict[str, FailoverRunSpec] = {}
    order: tuple[str, ...] = ()
    for name, text in texts.items():
        order = members_of(text)
        try:
            parts[name] = FailoverRunSpec.model_validate(json.loads(text)["spec"])
        except (ValueError, KeyError, TypeError, ValidationError):
            return None
    there = [name for name in order if name in parts]
    if not there or (not partial and len(there) < len(order)):
        return None
    members = tuple(member for name in there for member in parts[name].members if member.protected_vm == name)
    return parts[there[0]].model_copy(update={"members": members})
