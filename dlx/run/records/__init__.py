"""What a run writes besides checkpoints: metrics, events, progress, the record."""
