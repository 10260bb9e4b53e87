"""Guidance: a prior's scores of what is rendered, turned into a gradient on it."""
