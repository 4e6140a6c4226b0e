"""Ranks of Hessians: closed forms for linear networks, and the rank of a measured spectrum."""
