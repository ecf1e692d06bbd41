"""For tests, ours and other people's: a server that does what it is told, misbehaviour included."""
