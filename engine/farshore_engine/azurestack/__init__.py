"""Azure Stack Hub as a site: its Resource Manager, its machines, and how a machine comes home to it."""
