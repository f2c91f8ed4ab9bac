"""The replication engine: agent, process server, vault and hydration. It knows nothing of Kubernetes."""
