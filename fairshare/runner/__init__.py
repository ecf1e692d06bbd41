"""From what the user asked for to what was measured: plan, run, account."""
