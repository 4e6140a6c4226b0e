"""Limit laws of random matrices, one a file; each has a page of the same name under ``theory/``."""
