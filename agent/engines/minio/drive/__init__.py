"""What lies on a drive, and the two ways to have it at one moment: a snapshot and an exchange."""
