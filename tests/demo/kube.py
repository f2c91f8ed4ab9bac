"""Reads and waits for resources with kubectl, as a person at a terminal does, and says what was seen on failure."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from farshore_cli.dev.controlplane import ControlPlane

ANSWERS_WITHIN = 120.0
"""Seconds after which an API server that cannot be read is given up; a busy host leaves single requests unanswered."""
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

    def _read(self, *what: str) -> str | None:
        """Return what `kubectl get` prints, None if it is not there. Raises DemoFailed if nobody answers."""
        deadline = time.monotonic() + ANSWERS_WITHIN
        while True:
            ran = self.plane.kubectl("-n", self.namespace, "get", *what, "-o", "json", check=False)
            if not ran.returncode:
                return ran.stdout
            if "NotFound" in ran.stderr:
                return None
            if time.monotonic() > deadline:
                raise DemoFailed(ran.stderr.strip())
            time.sleep(1)

    def apply(self, text: str) -> None:
        """Apply manifests, as `kubectl apply -f` does."""
        self.plane.kubectl("-n", self.namespace, "apply", "-f", "-", stdin=text)

    def delete(self, kind: str, name: str) -> None:
        """Ask for an object's deletion and return at once."""
        self.plane.kubectl("-n", self.namespace, "delete", kind, name, "--wait=false")

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

        Raises DemoFailed with the object's conditions if `failed` gives a reason, or after `within` seconds.
        """
        deadline = time.monotonic() + within
        while True:
            found = self.get(kind, name)
            if found is not None:
                show(say(found))
                if done(found):
                    return found
                if reason := failed(found):
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
