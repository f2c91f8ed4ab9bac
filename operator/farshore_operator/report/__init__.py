"""Everything that tells: status, metrics and logs."""
