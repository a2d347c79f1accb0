"""Benchmarks: every number of the README comes from here."""
