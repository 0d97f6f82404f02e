"""Verified context lengths in the configuration formats of other programs."""
