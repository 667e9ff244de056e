"""The report counts every row, and does not depend on where the data is."""

import json

from tests.helpers.problem_mixture import make_mixture


def test_the_report_counts_every_row_and_is_the_same_in_another_folder(prepare, tmp_path):
    mixture = make_mixture(0, clean=6)
    outputs = []
    for name in ("one", "two"):
        data = mixture.write_files(tmp_path / name)
        rates = tmp_path / "rates.jsonl"
        rates.write_bytes((data / "rates.jsonl").read_bytes())
        out = tmp_path / name / "out"
        prepare(
            "sources={taco: {}, primeintellect: {}}",
            "difficulty.mode=given",
            f"difficulty.rates={rates}",
            "length.max_tokens=6000",
            "contamination.tasks=[humaneval]",
            f"output={out}",
            data=data,
        )
        outputs.append({file.name: file.read_bytes() for file in out.iterdir() if file.is_file()})
    assert outputs[0] == outputs[1]
    report = json.loads(outputs[0]["report.json"])
    for source in report["sources"].values():
        left = source["rows"]
        for stage in report["stages"]:
            counts = source["stages"][stage]
            assert counts["came"] == left and counts["went"] == sum(counts["reasons"].values())
            left -= counts["went"]
        assert left == source["left"] == sum(source["splits"].values())
    duplicates = [example for example in report["examples"] if example["twin"]]
    assert duplicates and all(example["text"] and example["twin_text"] for example in duplicates)
    assert report["schema"] == 1 and report["broken"]["count"] == 5
