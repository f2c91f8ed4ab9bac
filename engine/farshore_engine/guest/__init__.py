"""Fits the disks of a machine, while it is off, to the place where it will run: network, agent, what a cloud needs."""
