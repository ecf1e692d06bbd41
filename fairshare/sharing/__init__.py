"""How a device is shared: plans that say what will be done, and partitioners that do and undo it."""
