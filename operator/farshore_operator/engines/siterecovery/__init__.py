"""Azure Site Recovery as an engine: observed, decided upon and called by a part of the operator."""
