"""The one door to verl, TransferQueue and vLLM's internals; the rest speaks our own terms.

Invariants:
* No other room imports verl or TransferQueue, or anything of vLLM but its public ``LLM`` and
  ``SamplingParams`` (``tests/unit/verl_adapter/test_room.py`` checks it).
* Every name of theirs that is used here stands in ``contract.toml`` with its signature; a test
  fails by name when an upgrade changes one. Moving to a new verl means changing this room only.
* Importing this package imports neither torch nor verl: verl loads our plugin in every process.
"""
