"""A scientific report as one self-contained HTML page; knows nothing of spectra."""
