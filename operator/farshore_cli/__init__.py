"""The `farshore` command: the one place that puts the operator and the engine together."""
