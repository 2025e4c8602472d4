"""The matrix of a limited rank that is nearest to another, as two thin ones.

With M = S S' the loss tr((W - W') M (W - W')') is ||W S - W' S||_F^2: the best W' S of rank r is the truncated SVD of
W S (Eckart & Young 1936), and W' is that times S^-1 (SVD-LLM, Wang et al. 2024). What is lost are the squares of the
other singular values.
"""

import torch


def squared_values(weight: torch.Tensor, metric: torch.Tensor | None) -> torch.Tensor:
    """Return the squared singular values of W S, descending, shape (min(out, in),).

    `weight` is W, (out, in), and `metric` M, (in, in), both float64; None stands for the identity.
    """
    root = root_of(metric)
    return torch.linalg.eigvalsh(smaller_gram(weight if root is None else weight @ root)).flip(0).clamp_min(0)


def factors(weight: torch.Tensor, metric: torch.Tensor | None, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return L, (out, rank), and R, (rank, in), whose product is nearest to W in the metric M; as squared_values."""
    root = root_of(metric)
    whitened = weight if root is None else weight @ root
    # Eigenvectors of the smaller Gram matrix take a fifth of the time of an SVD; float64 has digits enough for both.
    vectors = torch.linalg.eigh(smaller_gram(whitened)).eigenvectors[:, -rank:].flip(1)
    if len(weight) <= weight.shape[1]:  # left singular vectors, onto which the outputs are projected
        return vectors, vectors.T @ weight
    right = vectors if root is None else torch.linalg.solve_triangular(root.T, vectors, upper=True)
    return whitened @ vectors, right.T


def root_of(metric: torch.Tensor | None) -> torch.Tensor | None:
    """Return S, lower triangular, with M = S S'."""
    return None if metric is None else torch.linalg.cholesky(metric)


def smaller_gram(matrix: torch.Tensor) -> torch.Tensor:
    """Return A A' or A'A, the smaller of them."""
    return matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
