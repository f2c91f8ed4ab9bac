"""Heartbeats: a process server renews its Lease, the operator watches when each was last seen to change."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from farshore_operator.kube.client import Client, Json
from farshore_operator.kube.resources import LEASE

LABEL = "farshore.dev/process-server"


@dataclass(frozen=True)
class Heartbeat:
    """When a process server last renewed, by its own clock, and when that was seen, by ours."""

    renewed: datetime
    seen: datetime


class Heartbeats:
    """The heartbeats of all process servers, from polled Leases.

    The age of a heartbeat is measured on the operator's clock from the moment at which a change was seen, so it does
    not depend on the process server's clock. Only a Lease that was old already when first seen (the operator has
    just started) is judged by its own time.
    """

    def __init__(self, lost_after: timedelta, tolerance: timedelta = timedelta(minutes=5)) -> None:
        self._lost_after = lost_after
        self._tolerance = tolerance
        self._lock = threading.Lock()
        self._beats: dict[tuple[str, str], Heartbeat] = {}
        self._told: dict[tuple[str, str], bool] = {}

    def poll(self, client: Client, namespaces: tuple[str, ...], now: datetime) -> list[tuple[str, str]]:
        """Read the Leases; return the process servers that are heard of anew or no longer."""
        leases: list[Json] = []
        for namespace in namespaces or (None,):
            leases += client.list_all(LEASE, namespace, labels=LABEL)
        return self.learn(leases, now)

    def learn(self, leases: list[Json], now: datetime) -> list[tuple[str, str]]:
        """Take in a complete list of Leases; return the process servers whose connection changed."""
        with self._lock:
            beats: dict[tuple[str, str], Heartbeat] = {}
            for lease in leases:
                renewed = lease.get("spec", {}).get("renewTime")
                if renewed:
                    place = (lease["metadata"]["namespace"], lease["metadata"]["name"])
                    beats[place] = self._heard(place, datetime.fromisoformat(renewed).astimezone(UTC), now)
            self._beats = beats
            state = {place: self._connected(beat, now) for place, beat in beats.items()}
            changed = {place for place in state.keys() | self._told.keys() if state.get(place) != self._told.get(place)}
            self._told = state
            return sorted(changed)

    def of(self, namespace: str, name: str) -> Heartbeat | None:
        """Return the last heartbeat of a process server, None if it never renewed."""
        with self._lock:
            return self._beats.get((namespace, name))

    def connected(self, namespace: str, name: str, now: datetime) -> bool:
        """Tell whether a heartbeat arrived recently enough."""
        beat = self.of(namespace, name)
        return beat is not None and self._connected(beat, now)

    def _heard(self, place: tuple[str, str], renewed: datetime, now: datetime) -> Heartbeat:
        known = self._beats.get(place)
        if known is None:
            fresh = abs(now - renewed) <= self._lost_after + timedelta(seconds=5)
            ahead = renewed > now and renewed - now <= self._tolerance
            return Heartbeat(renewed, now if fresh or ahead else renewed)
        return known if known.renewed == renewed else Heartbeat(renewed, now)

    def _connected(self, beat: Heartbeat, now: datetime) -> bool:
        return now - beat.seen <= self._lost_after


def beat(client: Client, namespace: str, name: str, now: datetime) -> None:
    """Renew the Lease that the operator made for a process server.

    Raises:
        Fault: the API is away or refuses.
    """
    spec = {
        "holderIdentity": name,
        "leaseDurationSeconds": 20,
        "renewTime": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    client.apply(LEASE, namespace, {"metadata": {"name": name, "namespace": namespace}, "spec": spec})
