"""Questions to a recovered machine from outside: one file for each way of asking, and `asking` that repeats them."""
