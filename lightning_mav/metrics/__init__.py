"""Measures of generated video: pure functions in float64, and torchmetrics ``Metric`` classes that stream over them."""
