"""Where the models of a run may be tested: what hosts list, what models ask for, what fits."""
