"""The pages that people look at: of a run (``verl-pipeline report``), an evaluation, a plan.

:mod:`.page` writes an HTML file from a template in ``assets``, with :mod:`.figures` for its charts.
Of a run, :mod:`.run_view` holds what is known, :mod:`.run_content` what the page shows;
:mod:`.timeline`, :mod:`.bills`, :mod:`.curves` and :mod:`.batches` draw it, :mod:`.rollouts` packs
the trajectories that can be read. :mod:`.comparison` sets runs beside one another;
:mod:`.terminal` prints the summary, :mod:`.trace_events` writes the trace that Perfetto opens.
:mod:`.evaluation_page` shows an evaluation, whose charts :mod:`.score_charts` draws;
:mod:`.plan_page` a plan of ``verl-pipeline plan``.

Invariants:
* A page is one file that requests nothing. Its content security policy names the hash of each of
  its scripts, so no other script runs, wherever it may come from.
* What a model, a grader or a data set wrote enters the page escaped by Jinja2, or as data that
  scripts show as text only.
* The size of a page is bounded whatever the size of the run; what it leaves out, it says.
"""
