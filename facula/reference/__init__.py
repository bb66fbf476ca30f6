"""The executor that computes a graph step by step with NumPy."""
