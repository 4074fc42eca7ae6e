"""What Uptime Kuma keeps where, and which of its versions can take over whose data."""
