"""Generation of verifiable problems, in front of the preparation (``recipes.deepcoder.data``)."""
