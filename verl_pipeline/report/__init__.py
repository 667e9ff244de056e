"""What people look at after, or during, a run: ``verl-pipeline report``.

:mod:`.run_view` holds what is known of one run, :mod:`.run_content` what the page shows of it;
:mod:`.timeline`, :mod:`.bills`, :mod:`.curves` and :mod:`.batches` draw it with Bokeh,
:mod:`.rollouts` packs the trajectories that can be read. :mod:`.comparison` sets runs beside one
another; :mod:`.page` writes the HTML file, :mod:`.terminal` the summary, :mod:`.trace_events` the
trace that Perfetto opens. :mod:`.plan_page` shows a plan of ``verl-pipeline plan``.

Invariants:
* A page is one file that requests nothing. Its content security policy names the hash of each of
  its scripts, so no other script runs, wherever it may come from.
* What a model, a grader or a data set wrote enters the page escaped by Jinja2, or as data that
  scripts show as text only.
* The size of a page is bounded whatever the size of the run; what it leaves out, it says.
"""
