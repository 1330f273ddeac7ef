"""What all experiments of a kind report: evaluations, figures, functions."""
