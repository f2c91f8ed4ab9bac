"""Says which reference does not resolve: the object, the key in it, and the field that names it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

HEALS = "It is looked at again within 10 s"


@dataclass(frozen=True)
class SecretUse:
    """A Secret that is referred to, with what was found.

    Attributes:
        field: the field that names it, such as `spec.encryption.keySecretRef`.
        keys: keys of which at least one must be there; empty if the Secret alone is enough.
        found: the keys that it has; None if it does not exist.
        empty: those of `keys` that are there without a value.
        bad_keys: those of `keys` whose value cannot be used, with `wanted` saying what is.
    """

    field: str
    name: str
    keys: tuple[str, ...] = ()
    found: frozenset[str] | None = None
    empty: frozenset[str] = frozenset()
    bad_keys: frozenset[str] = frozenset()
    wanted: str = ""


@dataclass(frozen=True)
class ObjectUse:
    """Another object of ours that is referred to, and whether it exists."""

    field: str
    kind: str
    name: str
    exists: bool


@dataclass(frozen=True)
class Problem:
    """A reference that does not resolve: reason for the condition, and the sentence."""

    reason: str
    message: str


def problems(namespace: str, uses: Iterable[SecretUse | ObjectUse]) -> tuple[Problem, ...]:
    """Return what does not resolve, in the order of `uses`."""
    found = (_secret(namespace, use) if isinstance(use, SecretUse) else _object(namespace, use) for use in uses)
    return tuple(problem for problem in found if problem is not None)


def summary(found: tuple[Problem, ...]) -> Problem:
    """Return one problem that tells all of them; `found` must not be empty."""
    return Problem(found[0].reason, "; ".join(problem.message for problem in found) + f". {HEALS}")


def _object(namespace: str, use: ObjectUse) -> Problem | None:
    if use.exists:
        return None
    return Problem(f"{use.kind}NotFound", f"{use.field} names {use.kind} {namespace}/{use.name}, which does not exist")


def _secret(namespace: str, use: SecretUse) -> Problem | None:
    where = f"{use.field} names Secret {namespace}/{use.name}"
    if use.found is None:
        return Problem("SecretNotFound", f"{where}, which does not exist")
    if not use.keys:
        return None
    present = [key for key in use.keys if key in use.found]
    if not present:
        has = ", ".join(sorted(use.found)) or "no key at all"
        return Problem("SecretKeyNotFound", f"{where}, which has no key {' or '.join(use.keys)} (it has {has})")
    if all(key in use.empty for key in present):
        return Problem("SecretKeyEmpty", f"{where}, whose key {present[0]} is empty")
    if present[0] in use.bad_keys:
        return Problem("SecretKeyInvalid", f"{where}, whose key {present[0]} is not {use.wanted}")
    return None
