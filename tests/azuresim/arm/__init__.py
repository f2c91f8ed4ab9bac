"""What every resource provider of the simulator shares: routing, tokens, errors, long operations, planned faults."""
