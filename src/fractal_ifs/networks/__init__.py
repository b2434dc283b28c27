"""The networks of the paper: x (..., d) to a real number, images to logits."""
