"""The parts of launch.plan: what a program needs of a machine that is not here."""
