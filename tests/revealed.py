"""Random matrices of any side, drawn only where a Lanczos run looks at them.

A Gaussian matrix that was multiplied with a few vectors is, given the products, as random as before
in all other directions. So a product with a new vector is drawn when it is asked for. And of a
Gaussian vector of ℝⁿ only its components along directions that were seen before and the length of
the rest matter: normal variables and a chi variable. Both are exact; so a run on a matrix of side
10⁶, also beside a diagonal matrix of few distinct entries, costs as much as on one of side 100.

It is the tridiagonal reduction of Dumitriu & Edelman (J. Math. Phys. 43, 2002) for sums and
products of several matrices, and for several start vectors. Nothing of rmthess is used.
"""

from __future__ import annotations

import numpy as np


class Space:
    """ℝⁿ, n = Σ groups; a vector has ``room`` coordinates in each, in a basis made on the way.

    ``groups``: dimensions of the eigenspaces of the diagonal matrices that take part.
    """

    def __init__(self, groups, room, rng):
        self.groups, self.room, self.rng, self.seen = np.array(groups, float), room, rng, 0

    @property
    def size(self):
        return self.groups.size * self.room

    def gaussian(self):
        """A standard normal vector of ℝⁿ: it adds one direction to the basis of each group."""
        k, n = self.seen, self.groups
        z = np.zeros((n.size, self.room))
        z[:, :k] = self.rng.standard_normal((n.size, k)) * (np.arange(k) < n[:, None])
        z[:, k] = np.sqrt(2 * self.rng.gamma(np.maximum(n - k, 0) / 2))  # chi of n - k degrees
        self.seen += 1
        return z.ravel()

    def diagonal(self, values):
        return np.repeat(np.asarray(values, float), self.room)


class Known:
    """Orthonormal vectors and their images."""

    def __init__(self, source, target):
        self.vectors, self.images = np.empty((0, source)), np.empty((0, target))

    def apply(self, x, image_of):
        """The image of ``x``; ``image_of(u)`` draws that of its part u outside what is known."""
        part = self.vectors @ x
        rest = x - part @ self.vectors
        again = self.vectors @ rest
        rest -= again @ self.vectors
        part, length = part + again, np.linalg.norm(rest)
        if length > 1e-12 * np.linalg.norm(x):
            u = rest / length
            image = image_of(u)
            self.vectors = np.vstack([self.vectors, u])
            self.images = np.vstack([self.images, image])
            part = np.append(part, length)
        return part @ self.images


class Wigner:
    """GOE: entries of variance 1/n, on the diagonal 2/n."""

    def __init__(self, space):
        self.space, self.known = space, Known(space.size, space.size)

    def __call__(self, x):
        return self.known.apply(x, self._image)

    def _image(self, u):
        q, y = self.known.vectors, self.known.images
        z = self.space.gaussian() / np.sqrt(self.space.groups.sum())
        z -= (q @ z) @ q
        return (y @ u) @ q + z + (np.sqrt(2) - 1) * (u @ z) * u


class Wishart:
    """XᵀX/samples, X (samples, n) standard normal."""

    def __init__(self, space, samples):
        self.right, self.samples = space, samples
        self.left = Space([samples], space.room, space.rng)
        self.forth = Known(space.size, self.left.size)  # v, Xv
        self.back = Known(self.left.size, space.size)  # w, Xᵀw

    def __call__(self, x):
        image = self.forth.apply(x, lambda u: self._draw(u, self.left, self.back))
        product = self.back.apply(image, lambda u: self._draw(u, self.right, self.forth))
        return product / self.samples

    def _draw(self, u, space, other):
        """A fresh vector but for its components that products the other way have fixed."""
        z = space.gaussian()
        return z + (other.images @ u - other.vectors @ z) @ other.vectors


def lanczos(product, start, steps):
    """Diagonal (steps,), off-diagonal (steps - 1,), residual; reorthogonalised."""
    rows = [start / np.linalg.norm(start)]
    a, b = np.empty(steps), np.empty(steps)
    for k in range(steps):
        rest = product(rows[k])
        a[k] = rows[k] @ rest
        basis = np.array(rows)
        for _ in range(2):
            rest = rest - (basis @ rest) @ basis
        b[k] = np.linalg.norm(rest)
        rows.append(rest / b[k])
    return a, b[:-1], b[-1]


def runs(make, groups, steps, probes, seed):
    """(diagonals, off-diagonals, residuals) of ``probes`` runs on one matrix ``make(space)``."""
    space = Space(groups, 4 * probes * (steps + 1), np.random.default_rng(seed))
    product = make(space)
    starts = [space.gaussian() for _ in range(probes)]
    return tuple(map(np.array, zip(*(lanczos(product, each, steps) for each in starts))))


def jacobi_ensemble(steps, dim, samples1, samples2, seed):
    """(diagonal, off-diagonal, residual) of A(A + B)⁻¹, A and B Wishart, from one random vector.

    Independent beta variables: Killip & Nenciu, IMRN 50 (2004), theorem 2, with β = 1.
    """
    k = np.arange(2 * steps)
    left, right = (samples2 - dim - 1) / 2, (samples1 - dim - 1) / 2
    s = np.where(k % 2, (2 * dim - k - 3) / 4 + left + right + 2, (2 * dim - k - 2) / 4 + left + 1)
    t = np.where(k % 2, (2 * dim - k - 1) / 4, (2 * dim - k - 2) / 4 + right + 1)
    alpha = np.append(1 - 2 * np.random.default_rng(seed).beta(s, t), -1.0)  # the last is α₋₁
    j = 2 * np.arange(steps)
    before = np.where(j > 0, alpha[j - 2], 0.0)
    a = (1 - alpha[j - 1]) * alpha[j] - (1 + alpha[j - 1]) * before
    b = np.sqrt((1 - alpha[j - 1]) * (1 - alpha[j] ** 2) * (1 + alpha[j + 1]))
    return (2 + a) / 4, b[:-1] / 4, b[-1] / 4
