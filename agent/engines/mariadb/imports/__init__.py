"""A dump loaded beside the app's schema, exchanged for it, and taken back."""
