"""Studies as users write them."""
