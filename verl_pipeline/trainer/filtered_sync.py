"""verl's synchronous trainer with filters: ``trainer.v1.trainer_mode=sync_filtered``.

For colocated training with any filter, those that set advantages to 0 included. Filters that only
drop need no trainer of ours: see :mod:`verl_pipeline.trainer.filtering_buffer`.
"""

from omegaconf import DictConfig
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from verl_pipeline.plugin import FILTERED_SYNC_MODE
from verl_pipeline.trainer.checks import check_mini_batches
from verl_pipeline.trainer.config import load_filtered_sync_config
from verl_pipeline.trainer.filtering import FilteringTrainer


@register_trainer(FILTERED_SYNC_MODE)
class FilteredSyncTrainer(FilteringTrainer, PPOTrainerSync):
    """verl's ``sync`` with the filters of ``trainer.v1.sync_filtered.filters`` (default:
    ``[infrastructure]``).

    Raises:
        ConfigError: a filter or a setting that cannot work, before anything is loaded.
    """

    def __init__(self, config: DictConfig):
        self.filters = load_filtered_sync_config(config)
        check_mini_batches(config)
        # verl asks for its mode by name wherever sync differs from the asynchronous ones.
        config.trainer.v1.trainer_mode = "sync"
        super().__init__(config)
