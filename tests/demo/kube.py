"""Reads and waits for resources with kubectl, as a person at a terminal does, and says what was seen on failure."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from farshore_cli.dev.controlplane import ControlPlane

ANSWERS_WITHIN = 120.0
"""Seconds after which an API server that cannot be read is given up; a busy host leaves single requests unanswered."""
TRIED_AGAIN_WITHIN = 100.0
"""Seconds in which what failed because the host is busy, a login say, is tried again and heals."""
REFUSED = ("Invalid", "invalid", "no matches for kind")  # which asking again does not change
Object = dict[str, Any]
Say = Callable[[str], None]


class DemoFailed(Exception):
    """Something is off; the message says what, and what was last seen."""


class Kube:
    """The resources of one namespace. One that the operator has not looked at yet is given with an empty status."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.plane = plane
        self.namespace = namespace

    def get(self, kind: str, name: str) -> Object | None:
        """Return the object, None if it is not there."""
        text = self._read(kind, name)
        return None if text is None else {"status": {}} | json.loads(text)

    def all(self, kind: str) -> list[Object]:
        """Return all objects of a kind."""
        found: list[Object] = json.loads(self._read(kind) or '{"items": []}')["items"]
        return [{"status": {}} | one for one in found]

    def everywhere(self, kind: str, *options: str) -> str:
        """Return all objects of a kind in all namespaces, as JSON."""
        return self._read(kind, "-A", *options) or '{"items": []}'

    def _read(self, *what: str) -> str | None:
        """Return what `kubectl get` prints, None if it is not there. Raises DemoFailed if nobody answers."""
        return self._insist("get", *what, "-o", "json")

    def _insist(self, *words: str, stdin: str = "") -> str | None:
        """Run kubectl until it succeeds and return what it prints, None if what it asks for is not there."""
        deadline = time.monotonic() + ANSWERS_WITHIN
        while True:
            ran = self.plane.kubectl("-n", self.namespace, *words, stdin=stdin, check=False)
            if not ran.returncode:
                return ran.stdout
            if "NotFound" in ran.stderr:
                return None
            if time.monotonic() > deadline or any(word in ran.stderr for word in REFUSED):
                raise DemoFailed(ran.stderr.strip())
            time.sleep(1)

    def apply(self, text: str) -> None:
        """Apply manifests, as `kubectl apply -f` does."""
        if self._insist("apply", "-f", "-", stdin=text) is None:
            raise DemoFailed("some of what was applied has no place")

    def delete(self, kind: str, name: str) -> None:
        """Ask for an object's deletion and return at once."""
        self._insist("delete", kind, name, "--wait=false")

    def wait(
        self,
        kind: str,
        name: str,
        done: Callable[[Object], bool],
        *,
        within: float,
        say: Callable[[Object], str] = lambda _: "",
        show: Say = lambda _: None,
        failed: Callable[[Object], str] = lambda _: "",
    ) -> Object:
        """Poll an object until `done`, showing what `say` makes of it.

        Raises DemoFailed with the object's conditions if `failed` gives a reason for longer than it takes to try a
        check of a machine again, or after `within` seconds.
        """
        deadline = time.monotonic() + within
        well = time.monotonic()
        while True:
            found = self.get(kind, name)
            if found is not None:
                show(say(found))
                if done(found):
                    return found
            if found is None or not (reason := failed(found)):
                well = time.monotonic()
            elif time.monotonic() > well + TRIED_AGAIN_WITHIN:
                raise DemoFailed(f"{kind}/{name}: {reason}\n{conditions(found)}")
            if time.monotonic() > deadline:
                raise DemoFailed(f"{kind}/{name} did not get there within {within:.0f} s\n{conditions(found or {})}")
            time.sleep(0.4)

    def wait_gone(self, kind: str, name: str, *, within: float) -> None:
        """Poll until the object is gone. Raises DemoFailed after `within` seconds."""
        deadline = time.monotonic() + within
        while (found := self.get(kind, name)) is not None:
            if time.monotonic() > deadline:
                raise DemoFailed(f"{kind}/{name} is still there after {within:.0f} s\n{conditions(found)}")
            time.sleep(0.4)


def condition(found: Object, kind: str) -> str:
    """Return the status of a condition: True, False, Unknown; empty if it was not observed."""
    for one in found.get("status", {}).get("conditions", []):
        if one["type"] == kind:
            return str(one["status"])
    return ""


def conditions(found: Object) -> str:
    """Return the conditions of an object, a line each."""
    lines = [
        f"  {one['type']}={one['status']} {one['reason']}: {one.get('message', '')}"
        for one in found.get("status", {}).get("conditions", [])
    ]
    return "\n".join(lines) or "  no conditions yet"


def phase(found: Object) -> str:
    """Return the phase, empty if there is none yet."""
    return str(found.get("status", {}).get("phase", ""))
