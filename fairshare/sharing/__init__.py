"""How a device is shared: plans say what will be done, partitioners do and undo it."""
