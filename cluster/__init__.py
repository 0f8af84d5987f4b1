"""The `hallo3` command, and where it runs."""
