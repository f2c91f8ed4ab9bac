"""Other programs for the same task, each at its best setting, and how the newest of them are built."""
