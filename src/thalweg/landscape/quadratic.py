"""Quadratic landscapes of any spectrum: controls whose every answer is known."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument, NotSymmetric
from thalweg.landscape.provenance import Provenance, Word
from thalweg.landscape.space import ParameterSpace
from thalweg.run.seeds import torch_generator


class Quadratic:
    """
    The landscape ``(w - centre)' A (w - centre) / 2 + height``.

    A bowl where all eigenvalues of A are positive, with one lowest point, to which every descent
    returns; a trough where some are zero; a saddle where some are negative.

    Parameters
    ----------
    curvature : Tensor
        Shape (W,), the diagonal of A, or (W, W), the whole of it, symmetric. Of float32 or
        float64, in which the landscape computes, where it lies.
    centre : Tensor, optional
        Shape (W,): the point without slope. By default all ones: away from zero, for
        perturbations are often proportional to the weights.
    height : float
        The value there.
    space : ParameterSpace, optional
        Names of layers and filters, for directions and perturbations; by default one tensor.

    Attributes
    ----------
    curvature, centre, height, space
        As given.
    dtype : torch.dtype
        Of points and gradients.
    device : torch.device
        Where it computes.

    Raises
    ------
    InvalidArgument
        If shapes do not fit, or the curvature is not of floating-point numbers.
    NotSymmetric
        If the matrix is not symmetric.

    Examples
    --------
    >>> bowl = Quadratic(torch.tensor([1.0, 3.0], dtype=torch.float64))
    >>> bowl.value(bowl.centre + 1.0), bowl.gradient(bowl.centre + 1.0).tolist()
    (2.0, [1.0, 3.0])
    """

    def __init__(
        self,
        curvature: Tensor,
        *,
        centre: Tensor | None = None,
        height: float = 0.0,
        space: ParameterSpace | None = None,
    ) -> None:
        _check(curvature)
        self.curvature, self.height = curvature, height
        self.dtype, self.device = curvature.dtype, curvature.device
        self.space = space or ParameterSpace.euclidean(len(curvature))
        self.centre = curvature.new_ones(len(curvature)) if centre is None else centre.to(curvature)
        if self.space.size != len(curvature):
            raise InvalidArgument(
                f"space has {self.space.size} weights and curvature {len(curvature)} rows; give"
                " both of one size."
            )
        self.space.check(self.centre)

    @classmethod
    def of_spectrum(cls, eigenvalues: Tensor, *, seed: int = 0) -> Quadratic:
        """
        Make one with given eigenvalues and random eigenvectors, orthonormal to rounding.

        Parameters
        ----------
        eigenvalues : Tensor
            Shape (W,).
        seed : int
            Of the eigenvectors, uniform over all orthonormal bases (the Q of a Gaussian matrix).

        Examples
        --------
        >>> saddle = Quadratic.of_spectrum(torch.tensor([-1.0, 0.0, 5.0], dtype=torch.float64))
        >>> [round(float(e), 9) + 0.0 for e in torch.linalg.eigvalsh(saddle.curvature)]
        [-1.0, 0.0, 5.0]
        """
        generator = torch_generator(seed, "eigenvectors")
        gaussian = torch.randn(
            len(eigenvalues), len(eigenvalues), generator=generator, dtype=torch.float64
        )
        q, r = torch.linalg.qr(gaussian)
        q = q * r.diagonal().sign()  # without this Q is not uniform (Mezzadri 2007, section 5)
        matrix = (q * eigenvalues.double().cpu()) @ q.T
        return cls(((matrix + matrix.T) / 2).to(eigenvalues))

    @property
    def provenance(self) -> Provenance:
        """State the dtype; the words say also that it is a quadratic."""
        return Provenance(dtype=self.dtype, further={"landscape": "quadratic"})

    @property
    def described(self) -> dict[str, Word]:
        """Say what it is, in the attributes of results."""
        return self.provenance.words

    def value(self, w: Tensor, /) -> float:
        """Evaluate the function at ``w``, shape (W,)."""
        offset = self._offset(w)
        image = self._multiply(offset)
        # Long sums of float32 would lose thousandths.
        return self.height + float(offset.double() @ image.double()) / 2

    def gradient(self, w: Tensor, batch: Tensor | None = None, /) -> Tensor:
        """
        Evaluate the gradient at ``w``, shape (W,).

        Raises
        ------
        InvalidArgument
            If a batch is asked for.
        """
        if batch is not None:
            raise InvalidArgument("a quadratic has no samples to take a batch of; leave it out.")
        return self._multiply(self._offset(w))

    def values_and_gradients(self, points: Tensor, /) -> tuple[Tensor, Tensor]:
        """Evaluate both at many points, shape (k, W): shapes (k,) and (k, W)."""
        offsets = points.detach().to(self.centre) - self.centre
        slopes = self._multiply(offsets.T).T
        return self.height + (offsets * slopes).sum(1) / 2, slopes

    def hessian(self, w: Tensor, /) -> QuadraticForm:
        """Give A, which is the Hessian at every point, as a linear operator."""
        self.space.check(w)
        return QuadraticForm(self.curvature)

    def _offset(self, w: Tensor) -> Tensor:
        return self.space.check(w).detach().to(self.centre) - self.centre

    def _multiply(self, v: Tensor) -> Tensor:
        return QuadraticForm(self.curvature) @ v


class QuadraticForm:
    """
    A symmetric matrix as a linear operator: whole, or diagonal without W^2 numbers.

    Parameters
    ----------
    matrix : Tensor
        Shape (W,), its diagonal, or (W, W).
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.shape = (len(matrix), len(matrix))
        self.dtype, self.device = matrix.dtype, matrix.device
        self.described = {"operator": "Hessian", "landscape": "quadratic"}

    def __matmul__(self, v: Tensor) -> Tensor:
        """
        Multiply a vector, shape (W,), or each column of a matrix, shape (W, k).

        Raises
        ------
        InvalidArgument
            If the shape does not fit.
        """
        if v.dim() not in (1, 2) or len(v) != len(self.matrix):
            raise InvalidArgument(
                f"got a tensor of shape {tuple(v.shape)}, expected ({len(self.matrix)},) or"
                f" ({len(self.matrix)}, k)."
            )
        v = v.to(self.matrix)
        if self.matrix.dim() == 2:
            return self.matrix @ v
        return self.matrix * v if v.dim() == 1 else self.matrix[:, None] * v


def _check(curvature: Tensor) -> None:
    square = curvature.dim() == 2 and curvature.shape[0] == curvature.shape[1]
    if not (curvature.dim() == 1 or square) or not len(curvature):
        raise InvalidArgument(
            f"curvature has shape {tuple(curvature.shape)}, expected (W,), the diagonal, or (W, W)."
        )
    if not curvature.is_floating_point():
        raise InvalidArgument(
            f"curvature has dtype {curvature.dtype}, expected torch.float32 or torch.float64."
        )
    if square and not torch.equal(curvature, curvature.T):
        raise NotSymmetric(
            "curvature is not symmetric to the last bit; write (matrix + matrix.T) / 2."
        )
