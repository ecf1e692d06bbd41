"""What a user writes: scenarios, launchers, matrices. Frozen, checked, every field described."""
