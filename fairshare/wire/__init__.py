"""What travels between a client and an LLM server: event streams, OpenAI's protocol, TGI's."""
