"""Looks into the vaults that machines move from: until a machine has its new item, its old one is what protects it."""

from __future__ import annotations

from collections.abc import Callable

from farshore_engine.contract.faults import Fault, StopFault
from farshore_operator.engines.siterecovery import reading
from farshore_operator.engines.siterecovery.client import VaultClient
from farshore_operator.engines.siterecovery.facts import Item, Scenario
from farshore_operator.engines.siterecovery.finding import find
from farshore_operator.engines.siterecovery.settings import VaultSettings
from farshore_operator.engines.siterecovery.wishes import MachineWish, Origin


class Origins:
    """What the vaults hold that machines move from, each listed once in a look."""

    def __init__(self, connect: Callable[[VaultSettings], VaultClient]) -> None:
        self._connect = connect
        self._listed: dict[VaultSettings, tuple[Item, ...]] = {}

    def client(self, origin: Origin) -> VaultClient:
        """Return the clients of the vault that a machine moves from.

        Raises:
            Fault: it is not known how to reach it.
        """
        if origin.settings is None:
            raise origin.fault or StopFault(f"RecoveryVault {origin.name} cannot be looked at", reason="SwitchFrom")
        return self._connect(origin.settings)

    def listed(self, wish: MachineWish) -> Item | None:
        """Return the item of the classic experience that a machine has in the vault that it moves from.

        Raises:
            Fault: that vault cannot be looked at.
        """
        if wish.origin is None:
            return None
        client = self.client(wish.origin)
        if client.settings not in self._listed:
            self._listed[client.settings] = reading.items(client)
        classic = [one for one in self._listed[client.settings] if one.scenario == Scenario.CLASSIC]
        return find(classic, wish.machine_id, wish.address)

    def holds(self, wish: MachineWish) -> bool:
        """Tell whether a machine may have an item there: it needs nothing of a vault that it moves into yet."""
        try:
            return self.listed(wish) is not None
        except Fault:
            return True
