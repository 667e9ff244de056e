"""From a teacher's graded answers to rows that verl's own SFT data set reads."""

import json

import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from verl_pipeline.evaluation.data import BadData
from verl_pipeline.quickstart.problems import load_problems, write_parquet
from verl_pipeline.recipes.deepcoder.distillation.answer_selection import select_answers
from verl_pipeline.recipes.deepcoder.distillation.distill_config import SelectionConfig
from verl_pipeline.recipes.deepcoder.distillation.sft_data import read_prompts, write_sft_rows
from verl_pipeline.recipes.deepcoder.distillation.teacher_answers import (
    Answer,
    read_answers,
    trim_answer,
)


def make_answer(text, tokens, problem="p", sample=0):
    return Answer(problem, sample, f"```python\n{text}\n```", tokens)


def test_the_shortest_right_answers_without_copies():
    answers = [
        make_answer("def f(x): return x + 1  # long", 30, sample=0),
        make_answer("def f(x):\n    return x + 1", 20, sample=1),
        make_answer("def f(x): return 1 + x", 25, sample=2),
        make_answer("def g(): pass", 9, problem="q"),
    ]
    chosen = select_answers(answers, SelectionConfig(per_problem=1))
    assert [(answer.problem, answer.sample) for answer in chosen] == [("p", 1), ("q", 0)]
    chosen = select_answers(answers, SelectionConfig(per_problem=3))
    copies = "sample 0 is a copy of 1"
    assert [(answer.problem, answer.sample) for answer in chosen] == [
        ("p", 1),
        ("p", 2),
        ("q", 0),
    ], copies


def test_diverse_answers_share_the_fewest_words():
    answers = [
        make_answer("def f(x): return sum(x)", 10, sample=0),
        make_answer("def f(x): return sum(x, 0)", 11, sample=1),
        make_answer("total = 0\nfor n in numbers:\n    total += n", 40, sample=2),
    ]
    chosen = select_answers(answers, SelectionConfig("diverse", 2))
    assert [answer.sample for answer in chosen] == [0, 2]
    chosen = select_answers(answers, SelectionConfig("shortest", 2))
    assert [answer.sample for answer in chosen] == [0, 1]


ANSWERS = st.lists(
    st.builds(
        make_answer,
        st.sampled_from(["def f(): return 1", "def f():\n  return 1", "x = 2", "not ( python"]),
        st.integers(1, 9),
        st.sampled_from(["p", "q"]),
        st.integers(0, 50),
    ),
    unique_by=lambda answer: (answer.problem, answer.sample),
)


@given(ANSWERS, st.sampled_from(["shortest", "diverse"]), st.integers(1, 4))
def test_a_choice_has_no_copies_and_does_not_depend_on_the_order(answers, keep, count):
    config = SelectionConfig(keep, count)
    chosen = select_answers(answers, config)
    assert chosen == select_answers(answers[::-1], config)
    for problem in ("p", "q"):
        own = [answer for answer in chosen if answer.problem == problem]
        known = {answer for answer in answers if answer.problem == problem}
        assert len(own) <= count and set(own) <= known and bool(own) == bool(known)
        if own:
            assert own[0].tokens == min(answer.tokens for answer in known)


def write_rows(folder, name, rows):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_only_right_complete_and_graded_answers_count(tmp_path):
    def make_sample(sample, finish="stop"):
        return {"id": "a", "sample": sample, "response": "r", "tokens": 5, "finish": finish}

    def make_verdict(sample, reward):
        return {"id": "a", "sample": sample, "reward": reward}

    rows = [make_sample(0), make_sample(1), make_sample(2, "length"), make_sample(3)]
    write_rows(tmp_path, "samples.jsonl", [*rows, make_sample(4)])
    verdicts = [(0, None), (1, 0.0), (2, 1.0), (3, None), (0, 1.0), (4, 1.0)]
    write_rows(tmp_path, "verdicts.jsonl", [make_verdict(*verdict) for verdict in verdicts])
    found = read_answers(tmp_path, 5, 4, {"model": {"name": "t"}})
    assert [answer.sample for answer in found.right] == [0], "graded again; 4 is beyond k"
    assert found.counts == {
        "problems": 1,
        "answers": 4,
        "right": 2,
        "cut_off": 1,
        "trimmed": 0,
        "missing": 2,
        "tokens": 20,
    }


@pytest.mark.parametrize(
    ("response", "trimmed"),
    [
        ("Here:\n```python\nx = 1\n```\nThis prog", "Here:\n```python\nx = 1\n```"),
        ("```python\nx = 1\n```", "```python\nx = 1\n```"),
        (
            "```python\nx = 1\n```\n```python\nx = 2\n```\n So",
            "```python\nx = 1\n```\n```python\nx = 2\n```",
        ),
        ("```python\nx = 1", None),
        ("no program", None),
    ],
)
def test_a_cut_off_answer_ends_with_its_program_or_is_left_out(response, trimmed):
    assert trim_answer(response) == trimmed


@pytest.mark.parametrize("is_trimmed", [False, True])
def test_right_answers_that_were_cut_off_are_trimmed_if_asked(tmp_path, is_trimmed):
    text = "```python\nx = 1\n```"
    row = {"id": "a", "sample": 0, "response": f"{text}\nAnd", "tokens": 5, "finish": "length"}
    write_rows(tmp_path, "samples.jsonl", [row])
    write_rows(tmp_path, "verdicts.jsonl", [{"id": "a", "sample": 0, "reward": 1.0}])
    found = read_answers(tmp_path, 1, 1, {"model": {"name": "t"}}, is_trimmed)
    assert [answer.response for answer in found.right] == [text] * is_trimmed
    assert found.counts["trimmed"] == is_trimmed and found.counts["cut_off"] == 1


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    problems = [one for one in load_problems() if one.difficulty == "easy"]
    file = write_parquet(folder, problems)["train"]
    prompts = read_prompts(file, "taco")
    answers = [Answer(name, 0, "```python\nab = 1\n```", 7) for name in list(prompts)[:3]]
    write_sft_rows(answers, prompts, folder / "sft.parquet")
    return folder / "sft.parquet", prompts


def test_verls_data_set_reads_the_rows_and_trains_on_the_answer_alone(rows, tiny_directory):
    from verl.utils import hf_tokenizer
    from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

    path, prompts = rows
    tokenizer = hf_tokenizer(str(tiny_directory / "model"))
    settings = OmegaConf.create(
        {"max_length": 1024, "truncation": "error", "pad_mode": "no_padding"}
    )
    dataset = MultiTurnSFTDataset([str(path)], tokenizer, settings)
    assert len(dataset) == 3
    row = dataset[0]
    trained = tokenizer.decode(row["input_ids"][row["loss_mask"].bool()])
    prompt = tokenizer.decode(row["input_ids"][~row["loss_mask"].bool()])
    assert "ab=1" in trained.replace(" ", "") and trained.rstrip().endswith("<|im_end|>")
    assert "ab" not in prompt.partition("assistant")[2]
    assert "user" in prompt


def test_the_rows_are_the_prompts_of_the_data_with_the_answer(rows):
    path, prompts = rows
    for row in pyarrow.parquet.read_table(path).to_pylist():
        assert row["messages"][:-1] == prompts[row["name"]]
        assert row["messages"][-1]["role"] == "assistant"


def test_an_answer_to_another_problem_is_refused(rows, tmp_path):
    with pytest.raises(BadData, match="nowhere: the teacher answered it"):
        write_sft_rows([Answer("nowhere", 0, "x", 1)], rows[1], tmp_path / "x.parquet")
    assert not (tmp_path / "x.parquet").exists()
