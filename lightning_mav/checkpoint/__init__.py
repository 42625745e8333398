"""Reading and writing checkpoints safely, exact resume, EMA, and the one resolver of model paths."""
