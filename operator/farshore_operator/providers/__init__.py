"""What each provider of sites can do in this release."""
