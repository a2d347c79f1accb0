"""What the paper says, and what was measured about it: pure functions and frozen records (numpy only)."""
