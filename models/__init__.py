"""First floor, PyTorch and array maths: motion fields, Euler integration, splatting, training."""
