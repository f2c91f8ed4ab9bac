"""From a recovery point to disks: raw files and qcow2, in full or only what differs from another point."""
