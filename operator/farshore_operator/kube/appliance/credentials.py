"""A process server's own token: used by every call, renewed at half of its life, kept in the state directory."""

from __future__ import annotations

import base64
import binascii
import json
import threading
from datetime import UTC, datetime, timedelta

import structlog

from farshore_engine.contract.faults import Fault, StopFault
from farshore_operator.kube import connection
from farshore_operator.kube.appliance.statedir import Registration, StateDir
from farshore_operator.kube.client import Client

LIFE = timedelta(days=7)
MANAGER = "farshore-processserver"

log = structlog.get_logger(__name__)


class Credentials:
    """Holds the connection whose token is exchanged in place."""

    def __init__(self, registration: Registration, state: StateDir) -> None:
        self._registration = registration
        self._state = state
        self._lock = threading.Lock()
        token = state.token()
        if not token:
            raise StopFault(
                "the state directory holds a registration without a token",
                f"Register again: `farshore site registration-key {registration.site}`",
                reason="NoToken",
            )
        self._api = connection.with_token(registration.server, registration.authority, token)
        self.client = Client(self._api, MANAGER)
        self._issued, self._expires = lifetime(token)

    @property
    def expires(self) -> datetime:
        """When the token ends."""
        return self._expires

    def due(self, now: datetime) -> bool:
        """Tell whether half of the token's life is over."""
        return now >= self._issued + (self._expires - self._issued) / 2

    def renew(self) -> None:
        """Exchange the token for a new one, and keep that before it is used.

        Raises:
            Fault: the API is away or refuses.
        """
        with self._lock:
            where = self._registration
            token = self.client.request_token(where.namespace, where.account, int(LIFE.total_seconds()))
            self._use(token.value)
        log.info("the token was renewed", expires=self._expires.isoformat())

    def renew_if_due(self, now: datetime) -> None:
        """Renew when it is time; a failure is tried again, there is half a life left for that."""
        if self.due(now):
            try:
                self.renew()
            except Fault as fault:
                log.warning("the token could not be renewed", cause=str(fault), expires=self._expires.isoformat())

    def _use(self, token: str) -> None:
        self._state.save_token(token)
        self._api.configuration.api_key["BearerToken"] = f"Bearer {token}"
        self._issued, self._expires = lifetime(token)


def lifetime(token: str) -> tuple[datetime, datetime]:
    """Return when a ServiceAccount token was issued and when it ends, by its own claims (not verified).

    Raises:
        StopFault: it is no such token.
    """
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return datetime.fromtimestamp(claims["iat"], UTC), datetime.fromtimestamp(claims["exp"], UTC)
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error) as error:
        raise StopFault(
            "the token in the state directory is damaged", "Register again with a new key", reason="BadToken"
        ) from error
