"""Markov chains whose limit is a model's distribution given what was observed."""
