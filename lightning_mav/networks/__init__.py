"""Architectures alone, in pure torch: no noise schedule, no training."""
