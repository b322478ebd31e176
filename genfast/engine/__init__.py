"""Incremental sampling: every value of a model is computed once. Pixel programs, their compiler, their engines."""
