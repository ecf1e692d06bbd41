"""The simulated GPU: its physics, an engine on it, a server in front, and stand-in driver tools."""
