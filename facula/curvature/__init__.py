"""Curvature: products with Hessian, Gauss-Newton and Fisher matrices of any model.

    fn = lambda: F.cross_entropy(model(x), y)
    H = facula.curvature.HessianOperator(fn, model)
    H @ v, H.trace(), H.eigenvalues(5), H.spectrum()

The products are derived from the recorded graph, so whatever has a derivative has curvature.
What does not depend on the vector is computed once, when the operator is made.
"""

from facula.curvature.cg import Solution, conjugate_gradients
from facula.curvature.lanczos import Spectrum
from facula.curvature.matrices import (
    EmpiricalFisherOperator,
    FisherOperator,
    GaussNewtonOperator,
    HessianOperator,
    empirical_fisher_diagonal,
)
from facula.curvature.operators import CurvatureOperator
from facula.curvature.preconditioners import FisherDiagonal, Kronecker

__all__ = ["CurvatureOperator", "HessianOperator", "GaussNewtonOperator", "FisherOperator",
           "EmpiricalFisherOperator", "empirical_fisher_diagonal", "conjugate_gradients",
           "FisherDiagonal", "Kronecker", "Solution", "Spectrum"]
