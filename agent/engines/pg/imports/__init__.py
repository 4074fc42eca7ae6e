"""What was loaded put in the place of what was, beside the app's database or within it, and taken back."""
