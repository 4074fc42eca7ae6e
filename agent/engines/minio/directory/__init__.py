"""The directory archive: a drive as a whole, out and in."""
