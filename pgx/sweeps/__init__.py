"""Many runs that belong together: planned and written down first, so that any process can see or finish them."""
