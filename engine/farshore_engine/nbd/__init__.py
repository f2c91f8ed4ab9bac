"""Points served as disks over the NBD protocol: a machine boots from one at once, while its data streams in behind."""
