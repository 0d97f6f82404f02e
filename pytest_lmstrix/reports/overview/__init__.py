"""Sections that the reports have in common: the headline, what to do, the order of the models."""
