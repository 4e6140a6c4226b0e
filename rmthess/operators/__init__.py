"""Curvature of a network's loss as a symmetric linear map on its parameters."""
