"""Lanczos: the spectrum of an operator that is known only by its products with vectors.

A Q_m = Q_m T_m + β_m q_{m+1} e_mᵀ  with orthonormal Q_m and tridiagonal T_m. The Gauss rule of T_m
integrates polynomials up to degree 2m - 1 exactly against the spectral measure of A at q_1;
averaged over random q_1 that is the eigenvalue distribution of A.
"""
