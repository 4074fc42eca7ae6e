"""A dump out, and the parts of its fingerprint."""
