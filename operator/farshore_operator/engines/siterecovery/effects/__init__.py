"""One call of Site Recovery for each file. Each may be repeated, and returns the job in which it goes on."""
