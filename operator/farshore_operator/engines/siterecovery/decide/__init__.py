"""Pure decisions of the driver: what Site Recovery says, what is wished, and the time, in; the next call and a report,
out."""
