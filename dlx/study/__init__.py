"""Many runs with a claim: declared, trained, compared."""
