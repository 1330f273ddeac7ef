"""The machine a launcher runs on: devices, allocator, many processes."""
