"""Code that vLLM imports into its own processes: the standard library and vLLM alone.

The engine often lives in an interpreter that knows nothing of fairshare, so a copy of this package
under a name of its own is put on its path (:mod:`fairshare.serving.plugins`). Whatever fails here
must leave the server running: each entry point catches everything and says it in the log.
"""
