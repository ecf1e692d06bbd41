"""What is sent and when: lengths, arrival times, prompts, datasets and traces. Pure and seeded."""
