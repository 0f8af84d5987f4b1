"""Timings, run by `make bench`. A comparison is a ratio within one run: machines are never idle alone."""
