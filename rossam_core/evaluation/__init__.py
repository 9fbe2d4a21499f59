"""How good masks are: metrics, scoring, baselines that learn nothing, and statistics."""
