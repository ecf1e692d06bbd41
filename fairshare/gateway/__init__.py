"""The fair-queuing proxy in front of an LLM server: it owns the queue and says who is next."""
