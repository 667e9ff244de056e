"""The selectors: registry, beliefs, what they prefer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.curriculum_world import make_curriculum, make_prompts, run_steps
from verl_pipeline.curriculum import (
    GroupOutcome,
    LearnabilitySelector,
    UniformSelector,
    load_selector,
    register_selector,
)
from verl_pipeline.curriculum.evidence import CellPriors, PromptEvidence
from verl_pipeline.curriculum.neighbours import MOST, find_neighbours
from verl_pipeline.curriculum.settings import (
    CurriculumSettings,
    describe_curriculum,
    find_wrong_curriculum,
)


def make_outcome(row, solved, members=8, is_blind=True):
    successes = np.array([1.0] * solved + [0.0] * (members - solved))
    return GroupOutcome(row, successes, np.full(members, 9), 0, is_blind)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("learnabilty", "unknown selector 'learnabilty'; did you mean learnability. registered: "),
        ("zzz", "unknown selector 'zzz'; registered: learnability, similar, uniform"),
        ("no.such.module", "selector 'no.such.module' cannot be imported"),
        ("numpy.ndarray", "selector 'numpy.ndarray' is no selector: a class with a method observe"),
        ({"half_life": 3}, "a name is needed"),
        ({"name": "learnability", "halflife": 3}, "unexpected keyword argument 'halflife'; it t"),
        ({"name": "learnability", "half_life": 0}, "half_life=0: must be a positive number"),
        ({"name": "learnability", "measured_weight": -1}, "measured_weight=-1: must be 0"),
        ({"name": "similar", "by": ["wording"]}, "must be a list of some of source, difficulty"),
        ({"name": "similar", "by": "text"}, "by=text: must be a list"),
        ({"name": "similar", "nearness": 0}, "nearness=0: must be above 0"),
        (3, "a name is needed"),
    ],
)
def test_a_wrong_selector_is_refused_in_one_line(entry, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_selector(entry)
    assert "\n" not in str(caught.value)
    lines = list(find_wrong_curriculum(CurriculumSettings(selector=entry), "k.curriculum"))
    assert len(lines) == 1 and lines[0].startswith("k.curriculum.selector: ")


def test_a_share_that_lets_prompts_starve_is_refused():
    for share in (0.0, 1.5, -1):
        (line,) = find_wrong_curriculum(CurriculumSettings(floor_share=share), "k")
        assert line.startswith(f"k.floor_share={share}: must be above 0")
    assert not list(find_wrong_curriculum(CurriculumSettings(), "k"))


def test_a_run_says_who_chooses_its_prompts():
    words = {
        entry: describe_curriculum(CurriculumSettings(selector=entry))
        for entry in (None, "uniform", "similar")
    }
    assert words[None] == "the data loader's, in its order"
    assert words["uniform"] == "chosen by uniform"
    assert words["similar"].startswith("chosen by similar; 10 % of the places go to those that")


def test_a_name_belongs_to_one_class():
    assert register_selector("uniform")(UniformSelector) is UniformSelector
    with pytest.raises(ValueError, match="belongs to UniformSelector"):
        register_selector("uniform")(LearnabilitySelector)


@given(n=st.integers(3, 30), batch_size=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_uniform_is_the_loaders_order_without_the_rest_of_an_epoch(n, batch_size):
    prompts = make_prompts(n)
    curriculum = make_curriculum("uniform", prompts, batch_size=batch_size)
    per_epoch = n // batch_size
    chosen = run_steps(curriculum, np.full(n, 0.5), 3 * per_epoch - 1, lead=1)
    wanted = np.concatenate([prompts.order(epoch)[: per_epoch * batch_size] for epoch in range(3)])
    assert np.concatenate(list(chosen.values())).tolist() == wanted.tolist()


def test_evidence_halves_and_adds():
    evidence = PromptEvidence(np.array([np.nan, 0.25]), measured_weight=4.0, half_life=10.0)
    assert [column.tolist() for column in evidence.read(0)] == [[0, 1], [0, 4]]
    evidence.add(10, [make_outcome(0, 2), make_outcome(1, 8)])
    solved, tried = evidence.read(20)
    assert solved.tolist() == [1.0, 4.25] and tried.tolist() == [4.0, 5.0]


def test_a_cell_tells_how_alike_its_prompts_are():
    cells = np.array([0] * 50 + [1] * 50)
    priors = CellPriors([np.zeros(100, dtype=np.int64), cells], half_life=1e9)
    random = np.random.RandomState(0)
    outcomes = [make_outcome(row, 8 * (row % 2)) for row in range(50)]  # never or always
    outcomes += [make_outcome(row, random.binomial(8, 0.5)) for row in range(50, 100)]  # alike
    priors.add(1, outcomes)
    a, b = priors.compute()
    means, learnable = a / (a + b), a * b / ((a + b) * (a + b + 1))
    assert means[[0, 99]] == pytest.approx([0.5, 0.5], abs=0.1)
    assert learnable[0] < 0.07 and learnable[99] > 0.2


def test_what_was_selected_says_nothing_about_the_others():
    priors = CellPriors([np.zeros(9, dtype=np.int64)], half_life=10)
    before = priors.compute()
    priors.add(1, [make_outcome(row, 4, is_blind=False) for row in range(9)])
    assert np.array_equal(before, priors.compute())


def test_learnability_prefers_what_is_solved_half_of_the_time():
    rates = np.array([0.0, 1.0, 0.5, 0.02] * 25)
    curriculum = make_curriculum("learnability", make_prompts(100), batch_size=5)
    chosen = run_steps(curriculum, rates, 120, lead=1)
    late = np.concatenate([chosen[batch] for batch in range(80, 121)])
    assert (rates[late] == 0.5).mean() > 0.7


def test_measured_pass_rates_are_used_before_anything_is_sampled():
    rates = np.array([0.0, 1.0, 0.5, 0.0] * 25)
    found = {}
    for weight in (0, 32):
        entry = {"name": "learnability", "measured_weight": weight}
        rows = make_curriculum(entry, make_prompts(100, rates), batch_size=10).propose(1)
        found[weight] = (rates[rows] == 0.5).sum()
    assert found[0] < 7 <= found[32] - 1


def test_similar_judges_a_prompt_that_it_has_not_seen():
    """Half of the sources are hopeless. Neither selector has seen most of the prompts."""
    n, steps = 4000, 60
    sources = ["good" if row % 4 == 0 else f"bad {row % 4}" for row in range(n)]
    rates = np.array([0.5 if source == "good" else 0.0 for source in sources])
    shares = {}
    for entry in ("learnability", "similar"):
        curriculum = make_curriculum(entry, make_prompts(n, sources=sources), batch_size=10)
        chosen = run_steps(curriculum, rates, steps, lead=1)
        late = np.concatenate([chosen[batch] for batch in range(20, steps)])
        shares[entry] = (rates[late] > 0).mean()
    assert shares["similar"] > 0.85 > shares["learnability"]


def test_near_texts_share_what_they_earned():
    family = "sort a list of {} numbers by their last digit and print every second one"
    texts = [family.format(word) for word in ("two", "ten", "some")]
    texts += [f"unrelated {row} text {row * 7} about {row * 13} things {row}" for row in range(30)]
    prompts = make_prompts(len(texts), texts=texts)
    selector = load_selector({"name": "similar", "by": ["text"], "nearness": 0.4})
    selector.begin(prompts, 1)
    selector.observe(1, [make_outcome(0, 0, is_blind=False), make_outcome(5, 8, is_blind=False)])
    near, far = selector.predict(2, np.array([1, 20]))
    assert near < far - 0.2


def test_neighbours_are_mutual_bounded_and_no_boilerplate():
    frame = "Write a Python function that returns the following and nothing else please "
    own = [f"{row} alpha{row} beta{row} gamma{row} delta{row}" for row in range(60)]
    assert not len(find_neighbours([frame + text for text in own], 0.5).rows)
    copies = [own[0]] * 15 + own
    pairs = find_neighbours(copies, 0.5)
    assert set(pairs.rows.tolist()) <= {*range(16)}
    edges = set(zip(pairs.rows.tolist(), pairs.others.tolist(), strict=True))
    assert edges == {(b, a) for a, b in edges} and len(edges) == 16 * 15
    assert np.bincount(pairs.rows).max() <= MOST and pairs.weights.min() >= 0.5


def test_beliefs_are_finite_at_the_extremes():
    selector = LearnabilitySelector()
    selector.begin(make_prompts(50), 1)
    for batch in range(1, 200):
        selector.observe(batch, [make_outcome(row, 0) for row in range(50)])
    chosen = selector.choose(200, 5, np.ones(50, dtype=bool))
    assert len(set(chosen.tolist())) == 5
    assert ((selector.predict(200, chosen) >= 0) & (selector.predict(200, chosen) < 0.05)).all()
