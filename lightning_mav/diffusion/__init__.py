"""The mathematics of diffusion: pure functions and frozen dataclasses that know no network."""
