"""A drive's tree walked in a jail: counted, its fingerprints taken, its secrets closed and opened."""
