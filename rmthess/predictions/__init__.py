"""Spectra of Hessians from a model and its data, with nothing to fit: one theory a module."""
