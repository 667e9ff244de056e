"""Settings of a distillation: every field with its default and its meaning.

:mod:`verl_pipeline.recipes.deepcoder.distillation.distill_loader` reads and checks them.
"""

from dataclasses import dataclass, field

from verl_pipeline.evaluation.eval_settings import EngineConfig, GraderConfig


@dataclass
class TeacherConfig:
    """The model that is distilled.

    Attributes:
        model: folder or hub name; or, with ``engine.kind=server``, its name on the server.
        k: answers of the teacher to each problem (``sft``).
        temperature, top_p: sampling parameters of the answers (``sft``).
        engine: the engine that answers (``sft``), configured as in an evaluation.
    """

    model: str = ""
    k: int = 4
    temperature: float = 1.0
    top_p: float = 1.0
    engine: EngineConfig = field(default_factory=EngineConfig)


@dataclass
class SelectionConfig:
    """Which right answers of a problem become training rows (``sft``).

    Attributes:
        keep: ``shortest``, by tokens; ``diverse``: the answers whose programs share the fewest
            words with those already taken, beginning with the shortest.
        per_problem: at most this many answers of a problem.
        cut_off: what becomes of a right answer that reached ``max_tokens``: ``drop``; or ``trim``:
            it ends with its program, which teaches the student to end there.
    """

    keep: str = "shortest"
    per_problem: int = 1
    cut_off: str = "drop"


@dataclass
class SftConfig:
    """The SFT run.

    Attributes:
        epochs: passes over the rows.
        batch_size: rows of an update.
        micro_batch_size: rows of a forward pass of a rank.
        lr: learning rate.
    """

    epochs: int = 3
    batch_size: int = 8
    micro_batch_size: int = 4
    lr: float = 2e-5


@dataclass
class OnPolicyConfig:
    """The run of on-policy distillation in the pipelined trainer.

    Attributes:
        steps: updates.
        prompts: prompts of an update.
        n: answers of the student to each prompt.
        lr: learning rate.
        staleness: age of the student's answers in updates: 0 or 1.
        task_reward: whether the reward of the problems counts beside the teacher.
        coefficient: weight of the teacher beside the reward; 1 with ``task_reward=False``.
        loss: ``k1``: the teacher's log-probs as an advantage of each token; or a loss of verl's
            that is differentiated (``k2``, ``k3``, ``forward_kl_topk``).
        teacher_devices: devices of the teacher's pool.
        rollout_devices: devices of the rollout pool.
    """

    steps: int = 12
    prompts: int = 4
    n: int = 6
    lr: float = 2e-5
    staleness: int = 1
    task_reward: bool = False
    coefficient: float = 1.0
    loss: str = "k1"
    teacher_devices: int = 1
    rollout_devices: int = 1


@dataclass
class ScoreConfig:
    """The evaluation on the held-out problems, before and after.

    Attributes:
        n: samples of each problem.
        temperature: sampling parameter.
        engine: the engine, configured as in an evaluation.
    """

    n: int = 8
    temperature: float = 1.0
    engine: EngineConfig = field(default_factory=EngineConfig)


@dataclass
class DistillConfig:
    """All settings of a distillation.

    Attributes:
        method: ``sft``: the teacher's right answers; ``on_policy``: its log-probs of the student's
            answers.
        student: folder or hub name of the model that is trained, or ``quickstart``.
        data: folder with ``train.parquet`` and ``heldout.parquet``, as ``prepare`` writes it.
        source: reader of the tests, if ``data_source`` of the rows names none.
        output: folder of everything that is written.
        device: ``cpu`` or ``cuda``.
        devices: trainer ranks.
        max_prompt_tokens, max_tokens: lengths of a prompt and of an answer, in tokens.
        seed: seed of all samples and of the order of the rows.
        overrides: further overrides of verl's trainer.
        grader: how programs are isolated.
    """

    method: str = "sft"
    student: str = ""
    data: str = ""
    source: str = ""
    output: str = "outputs/distillation"
    device: str = "cpu"
    devices: int = 1
    max_prompt_tokens: int = 2048
    max_tokens: int = 16384
    seed: int = 0
    overrides: list[str] = field(default_factory=list)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    on_policy: OnPolicyConfig = field(default_factory=OnPolicyConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    grader: GraderConfig = field(default_factory=GraderConfig)
