"""The appliance: receives changes from agents, spools them durably, commits recovery points and carries out tasks."""
