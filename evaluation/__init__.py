"""Checkpoint + benchmark -> figures. Nothing is here yet."""
