"""Wiring: events enter a queue, the queue calls reconcilers, reconcilers observe, decide, act and report."""
