"""Pure parts of a train step; nothing here knows files, devices or the loop."""
