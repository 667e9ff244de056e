"""Runs the attack corpus (``tests/attacks``): programs that are wrong on purpose.

Most are right only if their attack works, so that ``accepted`` means that the attack succeeded. No
program may be accepted, look like a failure of the sandbox, disturb a right program beside or after
it, or leave a process or a file.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.helpers.attack_corpus import Attack, load_attacks
from tests.helpers.attack_problems import PROBLEMS, RIGHT_PROGRAMS, SPY, SPY_PROBLEM
from tests.helpers.patience import wait_until
from tests.helpers.sandbox_state import list_descendants, list_left_files, list_worker_pids
from tests.helpers.thinned import thin_out
from verl_pipeline.grading import GradingResult, Problem, Verdict, grade
from verl_pipeline.sandbox import Sandbox

pytestmark = pytest.mark.timeout(120)

NOT_AS_ROOT = pytest.mark.skipif(
    os.getuid() == 0, reason="refused to root; see test_ordinary_user.py"
)
ATTACKS = load_attacks()
# Seconds until the processes of an attack must have gone.
SETTLE_S = 10.0


def parametrize_attacks(attacks: Iterable[Attack], keep: int) -> pytest.MarkDecorator:
    """``make test`` runs ``keep`` of them, evenly spread over the families."""
    cases = [pytest.param(attack, id=attack.name) for attack in attacks]
    return pytest.mark.parametrize("attack", thin_out(cases, keep))


def skip_other_tiers(attack: Attack, tier: str) -> None:
    if attack.only_tier not in (None, tier):
        pytest.skip(f"makes no sense in the tier {tier}")


@pytest.fixture(scope="module", params=["namespaces", pytest.param("rlimits", marks=NOT_AS_ROOT)])
def sandbox(request) -> Iterator[Sandbox]:
    with Sandbox(2, request.param) as two_workers:
        yield two_workers


@pytest.fixture(scope="module")
def sandbox_of_one() -> Iterator[Sandbox]:
    with Sandbox(1) as one_worker:
        yield one_worker


@pytest.fixture(scope="module")
def verdict_table(request) -> Iterator[list[tuple[str, GradingResult]]]:
    """Rows that are printed after the last test of this module."""
    rows: list[tuple[str, GradingResult]] = []
    yield rows
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{'attack':44}{'verdict':16}{'tier':12}{'cpu_s':>7}{'wall_s':>8}")
        for name, result in rows:
            times = f"{result.cpu_s:7.2f}{result.wall_s:8.2f}"
            print(f"{name:44}{result.verdict:16}{result.tier or '':12}{times}")
        counts = Counter(result.verdict for _name, result in rows)
        print(", ".join(f"{verdict}: {count}" for verdict, count in counts.items()))


def check_accepted(problem: Problem, program: str, sandbox: Sandbox) -> None:
    result = grade(problem, program, sandbox)
    assert result.verdict is Verdict.ACCEPTED, result


def check_rejected(result: GradingResult) -> None:
    assert result.verdict not in (Verdict.ACCEPTED, Verdict.INFRASTRUCTURE), result
    assert result.reward == 0.0
    assert len(result.reason) < 500 and result.reason.isprintable(), result.reason[:1000]


def grade_beside_right_program(attack: Attack, sandbox: Sandbox) -> GradingResult:
    """Grade the attack, and a right program again and again in the meantime."""
    problem = PROBLEMS[attack.problem]
    with ThreadPoolExecutor(1) as executor:
        grading = executor.submit(grade, problem, attack.source, sandbox)
        while True:
            check_accepted(problem, RIGHT_PROGRAMS[attack.problem], sandbox)
            if grading.done():
                return grading.result()


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_right_program_of_each_problem_is_accepted(name, sandbox):
    check_accepted(PROBLEMS[name], RIGHT_PROGRAMS[name], sandbox)
    assert set(RIGHT_PROGRAMS) == set(PROBLEMS)


@parametrize_attacks(ATTACKS, keep=90)
def test_an_attack_fails_and_leaves_nothing(attack, sandbox, verdict_table):
    skip_other_tiers(attack, sandbox.tier)
    problem, right_program = PROBLEMS[attack.problem], RIGHT_PROGRAMS[attack.problem]
    worker_pids = list_worker_pids(sandbox)
    pids_before, files_before = list_descendants(worker_pids), list_left_files()
    if attack.family.burdens_machine:
        result = grade_beside_right_program(attack, sandbox)
    else:
        result = grade(problem, attack.source, sandbox)
    verdict_table.append((attack.name, result))
    check_rejected(result)
    with sandbox.lend_worker():  # so that both workers grade, whichever ran the attack
        check_accepted(problem, right_program, sandbox)
    check_accepted(problem, right_program, sandbox)
    assert list_worker_pids(sandbox) == worker_pids, "a worker broke"
    wait_until(
        lambda: list_descendants(worker_pids) <= pids_before, SETTLE_S, "its processes to end"
    )
    assert list_left_files() <= files_before


@parametrize_attacks((a for a in ATTACKS if a.family.leaves_traces), keep=30)
def test_the_next_program_finds_no_trace(attack, sandbox_of_one):
    skip_other_tiers(attack, sandbox_of_one.tier)
    (worker_pid,) = list_worker_pids(sandbox_of_one)
    check_accepted(SPY_PROBLEM, SPY, sandbox_of_one)
    check_rejected(grade(PROBLEMS[attack.problem], attack.source, sandbox_of_one))
    check_accepted(SPY_PROBLEM, SPY, sandbox_of_one)
    check_accepted(PROBLEMS[attack.problem], RIGHT_PROGRAMS[attack.problem], sandbox_of_one)
    assert list_worker_pids(sandbox_of_one) == {worker_pid}
