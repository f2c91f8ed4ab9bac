"""The control plane as a process server sees it: registration, credentials, what is assigned, and reports."""
