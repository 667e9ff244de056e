"""Trackers get what verl logs; the console gets a line, and the wall of keys a file."""

import json

from verl_pipeline.telemetry.recorder import Recorder, RunTarget
from verl_pipeline.verl_adapter.telemetry.step_log import StepLog


class Tracking:
    """verl's interface, with what each tracker got."""

    def __init__(self, *trackers):
        self.logger = dict.fromkeys(trackers)
        self.logged = []
        self.finished = None

    def log(self, data, step, backend=None):
        self.logged.append((dict(data), step, backend))

    def finish(self, exit_code=0):
        self.finished = exit_code


def log_steps(folder, header, *trackers):
    tracking = Tracking(*trackers)
    recorder = Recorder(RunTarget(str(folder), header), "driver")

    def complete(metrics, step):
        if step == 0:
            return None
        metrics["pipeline/busy/trainer"] = 0.5
        return f"line of step {step}"

    log = StepLog(tracking, recorder, complete)
    log.log(data={"val/x": 1.0}, step=0)
    log.log(data={"a": 2, "text": "words", "list": [1]}, step=1)
    log.finish(exit_code=3)
    recorder.close()
    (path,) = (folder / "telemetry").glob("steps-*.jsonl")
    return tracking, [json.loads(line) for line in path.read_text().splitlines()]


def test_the_console_gets_the_line_and_the_others_everything(tmp_path, made_header, capsys):
    tracking, records = log_steps(tmp_path, made_header, "console", "file")
    first, second = tracking.logged
    assert first == ({"val/x": 1.0}, 0, None)
    assert second[0]["pipeline/busy/trainer"] == 0.5 and second[0]["text"] == "words"
    assert second[2] == ["file"]
    assert capsys.readouterr().out == "line of step 1\n"
    assert (tmp_path / "steps.log").read_text() == "step:1 - a:2.0 - pipeline/busy/trainer:0.5\n"
    assert [(record["step"], record["metrics"]) for record in records] == [
        (0, {"val/x": 1.0}),
        (1, {"a": 2.0, "pipeline/busy/trainer": 0.5}),
    ]
    assert tracking.finished == 3


def test_without_the_console_nothing_is_printed(tmp_path, made_header, capsys):
    tracking, records = log_steps(tmp_path, made_header, "file")
    assert [entry[2] for entry in tracking.logged] == [None, None]
    assert capsys.readouterr().out == "" and not (tmp_path / "steps.log").exists()
    assert len(records) == 2
