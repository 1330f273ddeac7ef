"""The checks of launch.doctor in their order, and how their findings are shown."""
