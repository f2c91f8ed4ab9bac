"""Source machines for tests and the demo: real sshd, real file systems, real writes."""
