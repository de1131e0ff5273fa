"""Diagrams of formulas and networks: a file each, drawn from the words that describe it."""
