"""PyTorch: the loop, the range test and what they stand on. Nothing here knows Optuna."""
