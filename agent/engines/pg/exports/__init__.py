"""A dump out, and the fingerprint of its snapshot."""
