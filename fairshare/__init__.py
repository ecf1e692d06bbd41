"""Which way of sharing this GPU between LLM tenants is fast, fair and isolated enough?"""

__version__ = "0.1.0"
