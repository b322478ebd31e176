"""Benchmarks: what genfast is measured against, and how."""
