"""Microsoft.Compute: disks that hold bytes, machines, availability sets, sizes and quotas."""

from tests.azuresim.compute.routes import plug
from tests.azuresim.compute.state import Compute, Machine, compute

__all__ = ["Compute", "Machine", "compute", "plug"]
