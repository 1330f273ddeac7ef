"""What launch.evaluate combines: its flags, and the runs they name."""
