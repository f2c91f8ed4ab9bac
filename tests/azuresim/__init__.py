"""Azure Resource Manager as far as Farshore calls it: stateful, slow as Azure is, refusing as Azure does.

Microsoft's SDKs reach it by their public settings only. Every rule cites where it is from; what is only inferred is
marked [inf] there and listed in docs/azure-unverified.md.
"""

from tests.azuresim.arm.call import Call, Later, Reply
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.faults import Fault, Faults
from tests.azuresim.arm.registry import Route
from tests.azuresim.sim import AzureSim, Record

__all__ = ["ArmError", "AzureSim", "Call", "Fault", "Faults", "Later", "Record", "Reply", "Route"]
