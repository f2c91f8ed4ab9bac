"""The machines of a Hub's site: found by name or private address, switched off and on."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from farshore_engine.azurestack.machine import Machine, Nic, PowerState, power_of, read_machine, read_nic
from farshore_engine.azurestack.resourcemanager import ResourceManager
from farshore_engine.contract.faults import StopFault, WaitFault

MACHINES = "Microsoft.Compute/virtualMachines"
NICS = "Microsoft.Network/networkInterfaces"
TRANSIENT = (PowerState.STARTING, PowerState.STOPPING, PowerState.DEALLOCATING, PowerState.UNKNOWN)


class Machines:
    """The machines of one site. Questions change nothing; what is asked to be so, and is so, is not done again.

    Methods raise WaitFault and StopFault as `ResourceManager` does.
    """

    def __init__(self, manager: ResourceManager) -> None:
        """Nothing is asked yet."""
        self.manager = manager
        self.site = manager.site
        self._subscription = f"/subscriptions/{self.site.subscription}"

    def id_of(self, name: str, resource_group: str = "") -> str:
        """Return the id that a machine of that name has in the group, the site's unless another is named."""
        group = resource_group or self.site.resource_group
        return f"{self._subscription}/resourceGroups/{group}/providers/{MACHINES}/{name}"

    def all(self) -> list[Machine]:
        """Return the machines of the subscription with their power states, by resource group and name."""
        nics = self._nics()
        found = []
        for body in self.manager.all(f"{self._subscription}/providers/{MACHINES}"):
            machine = self.get(str(body["id"]), nics)
            if machine is not None:  # it may have gone since the list was made
                found.append(machine)
        return sorted(found, key=lambda one: (one.resource_group.lower(), one.name.lower()))

    def get(self, machine_id: str, nics: dict[str, Nic] | None = None) -> Machine | None:
        """Return a machine with its power state, None if there is none of that id."""
        body = self.manager.find(machine_id, **{"$expand": "instanceView"})
        if body is None:
            return None
        known = self._nics_of(body) if nics is None else nics
        return read_machine(body, known)

    def at(self, addresses: Sequence[str]) -> Machine | None:
        """Return the machine that has one of these private addresses, None if none has.

        Raises:
            StopFault: several have: networks of a subscription may use the same addresses.
        """
        wanted = {ipaddress.ip_address(one) for one in addresses}
        owners: dict[str, str] = {}
        for body in self.manager.all(f"{self._subscription}/providers/{NICS}"):
            owner = str((body.get("properties", {}).get("virtualMachine") or {}).get("id") or "")
            if owner and wanted & {ipaddress.ip_address(one) for one in read_nic(body).addresses}:
                owners[owner.lower()] = owner
        if len(owners) > 1:
            names = ", ".join(sorted(one.rsplit("/", 1)[1] for one in owners.values()))
            raise StopFault(
                f"{', '.join(addresses)} is the private address of several machines of the subscription: {names}",
                "Name the machine: spec.source.machine of the ProtectedVM",
                reason="MachineAmbiguous",
            )
        return self.get(next(iter(owners.values()))) if owners else None

    def find(self, name: str, address: str = "") -> Machine | None:
        """Return a machine by its name in the site's group, else by its private address, else by its name elsewhere.

        Elsewhere a name alone tells little: where the address is known, the machine must have it.

        Raises:
            StopFault: several groups have one of that name, and the address is not known.
        """
        if name and (machine := self.get(self.id_of(name))) is not None:
            return machine
        if _is_address(address):
            return self._of_several(name, address)
        named = self._named(name)
        if len(named) > 1:
            raise StopFault(
                f"{len(named)} resource groups of the subscription have a machine {name}",
                "Give one of them another name, or make its group the site's: spec.azureStackHub.resourceGroup",
                reason="MachineAmbiguous",
            )
        return self.get(named[0]) if named else None

    def _of_several(self, name: str, address: str) -> Machine | None:
        """Return the machine that has the address; of several, the one of that name."""
        for machine_id in self._named(name):
            machine = self.get(machine_id)
            if machine is not None and address in machine.addresses:
                return machine
        return self.at([address])

    def _named(self, name: str) -> list[str]:
        if not name:
            return []
        bodies = self.manager.all(f"{self._subscription}/providers/{MACHINES}")
        return [str(one["id"]) for one in bodies if str(one["name"]).lower() == name.lower()]

    def power(self, machine_id: str) -> PowerState | None:
        """Return whether a machine runs, None if there is none of that id."""
        body = self.manager.find(machine_id, **{"$expand": "instanceView"})
        return power_of((body.get("properties") or {}).get("instanceView") or {}) if body is not None else None

    def start(self, machine: Machine) -> None:
        """Start a machine; the Hub says when it runs."""
        self.manager.post(f"{machine.id}/start")
        self._settled(machine, (PowerState.RUNNING,), "was started")

    def shut_down(self, machine: Machine, *, orderly: bool = True) -> None:
        """Power a machine off: its system shuts down, or, not `orderly`, its plug is pulled. It stays allocated."""
        if self._current(machine).off:
            return
        how = {} if orderly else {"skipShutdown": "true"}
        self.manager.post(f"{machine.id}/powerOff", None, **how)
        self._settled(machine, (PowerState.STOPPED, PowerState.DEALLOCATED), "was switched off")

    def deallocate(self, machine: Machine) -> None:
        """Give a machine's place on a host back, as its disks must be free."""
        if self._current(machine) is PowerState.DEALLOCATED:
            return
        self.manager.post(f"{machine.id}/deallocate")
        self._settled(machine, (PowerState.DEALLOCATED,), "was deallocated")

    def _current(self, machine: Machine) -> PowerState:
        return self.power(machine.id) or PowerState.UNKNOWN

    def _settled(self, machine: Machine, wanted: tuple[PowerState, ...], what: str) -> None:
        state = self._current(machine)
        if state in wanted:
            return
        raise WaitFault(
            f"{machine.name} {what}, and the Hub says that it is {state.value}",
            "It is looked at again; see its boot diagnostics in the Hub's portal if it repeats",
            reason="HubBusy" if state in TRANSIENT else "PowerState",
        )

    def _nics(self) -> dict[str, Nic]:
        bodies = self.manager.all(f"{self._subscription}/providers/{NICS}")
        return {str(body["id"]).lower(): read_nic(body) for body in bodies}

    def _nics_of(self, body: dict[str, object]) -> dict[str, Nic]:
        found = {}
        for nic in read_machine(body, {}).nics:
            if (given := self.manager.find(nic.id)) is not None:
                found[nic.id.lower()] = read_nic(given)
        return found


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
