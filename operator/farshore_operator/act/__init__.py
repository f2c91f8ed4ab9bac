"""Effects on the cluster: one in each file, each safe to repeat after a crash at any point."""
