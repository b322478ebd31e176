"""Triton kernels. Importing a module of this package needs triton; `genfast._native.backends` asks first."""
