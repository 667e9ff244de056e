"""Index and folder of the attack corpus agree, and what disagrees is refused and named."""

from collections import Counter

import pytest

from tests.helpers.attack_corpus import CORPUS_FOLDER, CorpusError, load_attacks

FEWEST_PROGRAMS, FEWEST_FAMILIES, FEWEST_IN_A_FAMILY = 60, 12, 3
ENTRY = '[[programs]]\nfile = "{file}"\nproblem = "{problem}"\nintent = "Prints 6."\n'
INDEX = '[families.exits]\naim = "End."\nburdens_machine = true\n\n' + ENTRY.format(
    file="exits/early.py", problem="sum"
)


@pytest.fixture
def corpus(tmp_path):
    """A corpus of one program."""
    (tmp_path / "exits").mkdir()
    (tmp_path / "exits" / "early.py").write_text("print(6)\n")
    (tmp_path / "index.toml").write_text(INDEX)
    return tmp_path


def test_the_corpus_has_an_entry_for_each_program_and_a_program_for_each_entry():
    attacks = load_attacks()
    files = sorted(CORPUS_FOLDER.glob("*/*"))
    assert sorted(attack.path for attack in attacks) == files
    sizes = Counter(attack.family.name for attack in attacks)
    assert len(attacks) >= FEWEST_PROGRAMS and len(sizes) >= FEWEST_FAMILIES, sizes
    assert min(sizes.values()) >= FEWEST_IN_A_FAMILY, sizes


def test_pytest_collects_no_program():
    for attack in load_attacks():
        assert not attack.path.stem.startswith("test_"), attack.name
        assert not attack.path.stem.endswith("_test"), attack.name


def test_an_entry_says_all_about_its_program(corpus):
    (attack,) = load_attacks(corpus)
    assert (attack.name, attack.problem, attack.source) == ("exits/early", "sum", "print(6)\n")
    assert (attack.family.burdens_machine, attack.family.leaves_traces) == (True, False)
    assert attack.only_tier is None


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ('[families.exits]\naim = "End."\n', "exits/early.py: has no entry"),
        (
            INDEX + ENTRY.format(file="exits/late.py", problem="sum"),
            "exits/late.py: has an entry, but no such file exists",
        ),
        (
            INDEX + ENTRY.format(file="exits/early.py", problem="sum"),
            "exits/early.py: has 2 entries",
        ),
        (INDEX.replace('"sum"', '"product"'), "exits/early.py: no problem 'product'; use one of"),
        (
            INDEX.replace('intent = "Prints 6."', 'intent = ""'),
            "exits/early.py: needs file, intent",
        ),
        (INDEX + 'tier = "rlimits"\n', "exits/early.py: needs file, intent"),
        (INDEX + 'only_tier = "docker"\n', "exits/early.py: no tier 'docker'; use one of"),
        (INDEX.replace("families.exits", "families.exit"), "exits: a folder and an entry"),
        (INDEX.replace("burdens_machine", "burdens"), "families.exits: needs an aim"),
    ],
)
def test_a_wrong_index_is_refused(corpus, index, message):
    (corpus / "index.toml").write_text(index)
    with pytest.raises(CorpusError, match=message):
        load_attacks(corpus)
