"""Whether this machine can run what is asked: findings, each with the command that mends it.

Nothing here changes anything, waits without a bound or needs a tool to be there.
"""
