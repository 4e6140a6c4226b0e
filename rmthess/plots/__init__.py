"""Pictures of spectral measures: each function draws on ``ax``, returns it and shows nothing.

``plot`` any measures, ``plot_fit`` a measurement beside theory, ``plot_ritz`` what Lanczos saw,
``plot_quantiles`` Q-Q, ``plot_jacobi`` the coefficients and ``plot_jacobi_residuals`` what a law
leaves of them, ``plot_residuals`` what it leaves of density or cdf, ``plot_row`` and ``plot_rows``
comparisons along a sequence.
"""

from rmthess.plots.coefficients import plot_jacobi, plot_jacobi_residuals
from rmthess.plots.comparisons import plot_residuals, plot_row, plot_rows
from rmthess.plots.density import plot, plot_fit
from rmthess.plots.quantiles import plot_quantiles
from rmthess.plots.ritz import plot_ritz

__all__ = [
    "plot",
    "plot_fit",
    "plot_jacobi",
    "plot_jacobi_residuals",
    "plot_quantiles",
    "plot_residuals",
    "plot_ritz",
    "plot_row",
    "plot_rows",
]
