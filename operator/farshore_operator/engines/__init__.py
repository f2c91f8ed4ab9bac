"""What each engine can do, so that what it lacks is refused by name, with the remedy."""
