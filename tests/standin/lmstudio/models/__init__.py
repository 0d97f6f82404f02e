"""The models that the stand-in serves, their behaviours and what answers for them."""
