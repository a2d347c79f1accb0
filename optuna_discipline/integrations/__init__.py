"""One small file per outside framework."""
