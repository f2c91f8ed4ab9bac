"""The data plane of managed disks: what a SAS URL of beginGetAccess leads to."""

from tests.azuresim.blobs.plane import plug

__all__ = ["plug"]
