"""The only place that talks to the Kubernetes API; everything above it sees models and faults."""
