"""Triton kernels. Importing a module of this package needs triton; `genfast._backends` asks first."""
