"""A dump's text as servers write it, read by a jailed child."""
