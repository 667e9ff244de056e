"""What verl computes on the driver for every token, row by row on the ranks and without padding.

verl pads each field to ``(n, longest response)`` first: at a mean of 8K tokens and a longest of 32K
three quarters of the work and the memory are padding. Here a field is one flat tensor of the tokens
that count, row after row. A rank works on its own rows and gives a few numbers of each (columns, by
name); all metrics of the batch follow from the columns of all rows, on the driver.

Invariants:
* Names and values of all metrics are verl's, within what the order of float32 sums changes; tests
  compare them with verl's own functions.
* A token outside the response mask takes part in nothing, whatever its value (NaN included).
* Memory beside input and result is bounded by :data:`.rows.BLOCK_TOKENS` and the longest row.
"""
