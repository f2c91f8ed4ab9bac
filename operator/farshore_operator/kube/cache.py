"""What the API holds, in memory: fed by watches and by the answers to our own writes, never going back in time.

The answer to a write enters at once, so that a decision never rests on a state older than the last one made here.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from farshore_operator.kube.client import Json

Place = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True)
class Entry:
    """An object with its version as a number, by which older news is told from newer."""

    body: Json
    version: int


News = Callable[[str, Json | None, Json], None]
"""Is told (kind, what was known before, object)."""


class Cache:
    """Objects by kind, namespace and name. Thread-safe; the objects must not be changed.

    Args:
        news: told of what `learn` brought, in the caller's thread.
    """

    def __init__(self, news: News | None = None) -> None:
        self._news = news
        self._lock = threading.Lock()
        self._objects: dict[str, dict[Place, Entry]] = defaultdict(dict)
        self._gone: dict[tuple[str, Place], int] = {}

    def put(self, kind: str, body: Json) -> bool:
        """Keep `body` unless something newer is known; True if it was news."""
        version, place = _version(body), _place(body)
        with self._lock:
            known = self._objects[kind].get(place)
            if (known is not None and known.version >= version) or self._gone.get((kind, place), -1) >= version:
                return False
            self._objects[kind][place] = Entry(body, version)
            self._gone.pop((kind, place), None)
            return True

    def learn(self, kind: str, body: Json) -> None:
        """Keep the answer to a write of our own, and tell of it: the watch will bring nothing new about it."""
        before = self.get(kind, *_place(body))
        if self.put(kind, body) and self._news is not None:
            self._news(kind, before, body)

    def drop(self, kind: str, body: Json) -> bool:
        """Forget a deleted object, unless it was made anew since; True if it was known."""
        version, place = _version(body), _place(body)
        with self._lock:
            known = self._objects[kind].get(place)
            if known is not None and known.version > version and _uid(known.body) != _uid(body):
                return False
            # A late answer to a write of ours must not bring it back.
            self._gone[(kind, place)] = max(version, known.version if known else -1)
            return self._objects[kind].pop(place, None) is not None

    def replace(self, kind: str, namespaces: Iterable[str] | None, bodies: list[Json], version: int) -> list[Json]:
        """Take over a complete list made at `version`; return what had disappeared unnoticed.

        `namespaces` None means that the list covers all of them.
        """
        present = {_place(body) for body in bodies}
        scope = None if namespaces is None else set(namespaces)
        for body in bodies:
            self.put(kind, body)
        with self._lock:
            lost = [
                (place, entry)
                for place, entry in self._objects[kind].items()
                if place not in present and entry.version <= version and (scope is None or place[0] in scope)
            ]
            for place, _ in lost:
                del self._objects[kind][place]
            self._gone.clear()
        return [entry.body for _, entry in lost]

    def get(self, kind: str, namespace: str, name: str) -> Json | None:
        """Return an object, None if it is not known."""
        with self._lock:
            entry = self._objects[kind].get((namespace, name))
        return entry.body if entry else None

    def all(self, kind: str, namespace: str | None = None) -> list[Json]:
        """Return the objects of a kind, of one namespace or of all, sorted by namespace and name."""
        with self._lock:
            found = [(place, e.body) for place, e in self._objects[kind].items() if namespace in (None, place[0])]
        return [body for _, body in sorted(found, key=lambda pair: pair[0])]

    def select(self, kind: str, namespace: str, test: Callable[[Json], bool]) -> list[Json]:
        """Return the objects of a namespace that pass `test`."""
        return [body for body in self.all(kind, namespace) if test(body)]


def _version(body: Json) -> int:
    text = str(body["metadata"].get("resourceVersion", "0"))
    return int(text) if text.isdigit() else 0


def _place(body: Json) -> Place:
    return body["metadata"].get("namespace", ""), body["metadata"]["name"]


def _uid(body: Json) -> str:
    return str(body["metadata"].get("uid", ""))
