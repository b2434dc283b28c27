"""Pictures of distributions and of what networks have learned of them."""
