"""Special functions for NumPy arrays of float64, which NumPy itself lacks.

No tables of fitted coefficients: series, asymptotic expansions, recurrences, and integrals by
the trapezoidal rule where that converges geometrically.  Formulas: M. Abramowitz and I. Stegun,
"Handbook of Mathematical Functions" (1964), and the NIST Digital Library of Mathematical
Functions.
"""
