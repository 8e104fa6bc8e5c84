"""Objectives: differentiable functionals of networks' weights, and directions and metrics that follow from them."""
