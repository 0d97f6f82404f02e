"""A pytest plugin that treats local LLM models as test cases."""
