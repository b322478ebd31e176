"""Markov chains whose limit is the distribution of a model given observations."""
