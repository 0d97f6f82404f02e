"""What many runs have in common: reports/index.html, made of the registry, and reports/runs/."""
