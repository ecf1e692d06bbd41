"""What there is to share: devices, their limits, their telemetry."""
