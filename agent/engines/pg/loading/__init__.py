"""An uploaded dump, taken apart and loaded into a database by a jailed child."""
