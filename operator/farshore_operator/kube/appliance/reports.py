"""Publishes reports: the newest of each object wins, failures are repeated, nothing blocks the engine."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from farshore_engine.contract.faults import Fault, StopFault
from farshore_engine.contract.model import Status
from farshore_operator.kube.client import Client, Json
from farshore_operator.kube.faults import Conflict, NotFound, Refused
from farshore_operator.kube.resources import Resource

PAUSE_FIRST, PAUSE_LAST = 0.5, 10.0
_Place = tuple[Resource, str]

log = structlog.get_logger(__name__)


class Reports:
    """Sends reports in a thread of its own.

    Args:
        learn: told of each answer, as (kind, object).
    """

    def __init__(self, client: Client, namespace: str, learn: Callable[[str, Json], None]) -> None:
        self._client = client
        self._namespace = namespace
        self._learn = learn
        self._condition = threading.Condition()
        self._waiting: dict[_Place, Json] = {}
        self._stopped = False
        self._thread = threading.Thread(target=self._send_forever, name="reports", daemon=True)

    def start(self) -> None:
        """Start sending."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Send what waits, for at most `timeout` seconds, and stop."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()
        self._thread.join(timeout)

    def put(self, resource: Resource, name: str, field: str, report: Status) -> None:
        """Publish `report` as `status.<field>` (the whole status if `field` is empty) as soon as possible."""
        status = dump(report)
        with self._condition:
            self._waiting.pop((resource, name), None)
            self._waiting[(resource, name)] = {field: status} if field else status
            self._condition.notify_all()

    def send(self, resource: Resource, name: str, status: Json) -> None:
        """Publish now.

        Raises:
            Fault: the API is away or refuses.
        """
        body = {"metadata": {"name": name, "namespace": self._namespace}, "status": status}
        self._learn(resource.kind, self._client.apply(resource, self._namespace, body, "status"))

    def _send_forever(self) -> None:
        pause = PAUSE_FIRST
        while True:
            with self._condition:
                while not self._waiting and not self._stopped:
                    self._condition.wait()
                if not self._waiting:
                    return
                place = next(iter(self._waiting))
                status = self._waiting.pop(place)
            if self._try(place, status):
                pause = PAUSE_FIRST
                continue
            with self._condition:
                self._waiting.setdefault(place, status)  # unless a newer one came meanwhile
                if self._stopped:
                    return
                self._condition.wait(pause)
            pause = min(PAUSE_LAST, pause * 2)

    def _try(self, place: _Place, status: Json) -> bool:
        resource, name = place
        try:
            self.send(resource, name, status)
        except NotFound:
            return True  # the object is gone, and its report with it
        except (Refused, StopFault) as fault:
            log.error("a report was refused", kind=resource.kind, object=name, cause=str(fault))
            return True  # the same report would be refused again
        except Conflict:
            return False
        except Fault as fault:
            log.warning("a report could not be sent", kind=resource.kind, object=name, cause=fault.message)
            return False
        except Exception:
            log.exception("a report could not be sent", kind=resource.kind, object=name)
            return False
        return True


def dump(report: Status) -> Json:
    """Return a report as the API takes it."""
    body: Json = report.model_dump(mode="json", by_alias=True, exclude_none=True)
    return body
